// The flow: which question is shown, what a button means, and which answer goes into the outbox.

import { Answers } from "./answers.js";
import { listenToKeys } from "./keys.js";
import { Outbox } from "./outbox.js";
import { $, ordered, showClasses, showHeading, showProgress, showReasons, showSaved } from "./panel.js";
import { Stage } from "./stage.js";

const AHEAD = 4; // questions that are fetched, and leased, before they are needed
const LONGEST = 300; // seconds that one answer may count
const GRIPS = [["box", [1, 1, 1, 1]], ["top left", [1, 1, 0, 0]], ["bottom right", [0, 0, 1, 1]]];

const questions = new Map(); // by id, as the server told them
const upcoming = []; // ids that are leased to us
const trail = []; // ids in the order in which they were shown
let answers = new Answers([]);
let about, outbox, progress;
let current = null; // the question that is shown
let draft = null; // its box as moved
let drawing = null; // null, "box" (the question's, anew) or "object" (another one)
let drawn = null; // the box of a drawn object that has no class yet
let finishing = false; // whether the image is being finished
let stored = 0; // answers that the server has confirmed since the page was opened
let grip = 0, shownAt = 0, names = [];

const stage = new Stage($("stage"), { moved: (box) => move(box), pointed: (points) => pointed(points) });

async function start() {
  about = await (await fetch("state")).json();
  answers = new Answers(about.done);
  outbox = new Outbox(`boxcycle ${about.title} ${about.annotator}`, {
    changed: (status) => showSaved(status, outbox?.waiting.length ?? 0),
    stored: (reply) => {
      stored += 1;
      count(reply.progress);
    },
  });
  outbox.waiting.forEach(apply);
  trail.push(...new Set(answers.events.map((event) => event.question)));
  $("title").textContent = about.title;
  document.title = `${about.title}: questions`;
  count(about.progress);
  await forward();
}

// --- which question

const isDone = (id) => answers.verdictOn(id) || answers.finished(questions.get(id)?.image);

async function fetchNext() {
  const before = stored;
  try {
    const reply = await (await fetch(`next?count=${AHEAD}`)).json();
    for (const question of reply.questions) {
      questions.set(question.id, question);
      if (!upcoming.includes(question.id)) upcoming.push(question.id);
      new Image().src = `images/${encodeURIComponent(question.id)}`;
    }
    if (stored === before) count(reply.progress); // otherwise it was counted before an answer that is shown already
    return true;
  } catch {
    return false;
  }
}

// The next question that is to be answered. Until it is shown, no key or button answers the one before again.
async function forward() {
  $("main").setAttribute("aria-busy", "true");
  try {
    await goForward();
  } finally {
    $("main").setAttribute("aria-busy", "false");
  }
}

const turning = () => $("main").getAttribute("aria-busy") === "true";

async function goForward() {
  const open = () => upcoming.find((id) => !isDone(id) && id !== current?.id);
  let connected = open() === undefined ? await fetchNext() : true;
  if (open() === undefined && outbox.waiting.length) {
    await outbox.settled(); // what is on its way may close questions that the server still offered
    connected = (await fetchNext()) && !outbox.waiting.length;
  }
  const id = open() ?? (current && !isDone(current.id) ? current.id : undefined);
  if (id === undefined) return showEnd(connected);
  await show(id);
  if (upcoming.filter((other) => !isDone(other)).length <= 2) fetchNext();
}

// A question by its id, from the server where it is not known yet.
async function ask(id) {
  if (!questions.has(id)) questions.set(id, await (await fetch(`questions/${encodeURIComponent(id)}`)).json());
  return questions.get(id);
}

async function show(id) {
  current = await ask(id);
  if (!trail.includes(id)) trail.push(id);
  const given = answers.verdictOn(id);
  draft = given?.box ?? current.box;
  drawn = null;
  finishing = current.box === null;
  names = ordered(about.classes, current);
  $("search").value = "";
  shownAt = performance.now();
  stage.open(`images/${encodeURIComponent(id)}`, current.size, `Image ${current.name}`);
  $("name").textContent = current.name;
  showReasons(current);
  setDrawing(finishing ? "object" : null);
  announce($("question").textContent);
}

function showEnd(connected) {
  current = draft = drawn = null;
  finishing = false;
  setDrawing(null);
  showReasons(null);
  if (connected) showHeading("Every question is answered. ", "", "Thank you. U takes back the last answer; the window can be closed.");
  else {
    showHeading("No connection. ", "", "The next question comes when the server answers again.");
    setTimeout(() => current ?? forward(), 2000);
  }
}

function step(by) {
  const at = current ? trail.indexOf(current.id) : trail.length;
  const id = trail[at + by];
  if (id !== undefined) show(id);
  else if (by > 0) forward();
}

// --- answers

function answer(action, content = {}, question = current) {
  const seconds = Math.min((performance.now() - shownAt) / 1000, LONGEST);
  shownAt = performance.now();
  const id = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const event = { id, question: question.id, action, seconds: Math.round(seconds * 100) / 100, ...content };
  apply(event);
  outbox.add(event);
  count(progress);
}

function apply(event) {
  answers.add(event, questions.get(event.question)?.image ?? null);
}

function accept() {
  if (drawing === "object" && !drawn && finishing) return finish();
  if (!current?.box || drawing) return;
  const moved = draft.some((side, at) => side !== current.box[at]);
  judge(moved ? "adjust" : "accept", { label: current.label, box: draft });
}

function choose(label) {
  if (turning()) return;
  $("search").value = "";
  if (drawn) {
    answer("draw", { label, box: drawn });
    drawn = null;
    announce(`${label} drawn`);
    setDrawing(finishing ? "object" : null);
    $("stage").focus({ preventScroll: true });
  } else if (!current?.box || drawing) return;
  else if (label === current.label) accept();
  else judge("relabel", { label, box: draft });
}

function judge(action, content) {
  answer(action, content);
  announce({ accept: "accepted", adjust: "accepted with the moved box", reject: "no object", relabel: content.label }[action]);
  if (finishing) refresh();
  else forward();
}

function finish() {
  if (!current) return;
  if (!finishing) {
    finishing = true;
    return setDrawing(answers.verdictOn(current.id) ? "object" : null);
  }
  if (current.box && !answers.verdictOn(current.id)) return announce("Say first what the orange box shows.", true);
  if (drawn) return announce("Choose the class of the drawn box first.", true);
  answer("finish");
  forward();
}

async function undo() {
  const last = answers.last();
  if (!last) return announce("There is nothing to take back.", true);
  answer("undo", { undoes: last.id, seconds: 0 }, await ask(last.question));
  await show(last.question);
  announce(`Taken back: ${last.action}`, true);
}

// --- boxes

function move(box) {
  if (drawn) drawn = box;
  else draft = box;
  refresh();
}

function nudge(right, down, by) {
  if (drawing && !drawn) {
    const [x, y] = stage.shown.cursor;
    const cursor = [stage.inside(x + right * by, 0), stage.inside(y + down * by, 1)];
    return stage.show({ cursor });
  }
  const box = drawn ?? draft;
  if (!box) return;
  const parts = GRIPS[grip][1], shift = [right * by, down * by, right * by, down * by];
  if (grip === 0) return move(stage.shifted(box, shift));
  const moved = box.map((side, at) => stage.inside(side + parts[at] * shift[at], at % 2));
  if (moved[2] - moved[0] >= 1 && moved[3] - moved[1] >= 1) move(moved);
}

function setDrawing(what) {
  drawing = what;
  const [width, height] = stage.size;
  stage.show({ points: what ? [] : null, cursor: what ? [width / 2, height / 2] : null });
  refresh();
}

function pointed(points) {
  if (points.length < 4) return refresh();
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  if (box[2] - box[0] < 1 || box[3] - box[1] < 1) {
    announce("The four points have no area between them.", true);
    return setDrawing(drawing);
  }
  const object = drawing === "object";
  if (object) drawn = box;
  else draft = box;
  drawing = null;
  stage.show({ points: null, cursor: null });
  refresh();
  if (object) $("search").focus({ preventScroll: true });
}

function escape() {
  if (drawing && !finishing) return setDrawing(null);
  if (drawing && stage.shown.points.length) return setDrawing(drawing);
  if (drawn) {
    drawn = null;
    return setDrawing(finishing ? "object" : null);
  }
  if (finishing && current.box) {
    finishing = false;
    setDrawing(null);
  }
  draft = current?.box ?? null;
  refresh();
}

// --- the page

function refresh() {
  const given = current && answers.verdictOn(current.id);
  showBoxes(given);
  if (current) showQuestion();
  showButtons(given);
  $("hint").textContent = hint();
  const said = { accept: "yes", adjust: "yes, with a moved box", reject: "no object", skip: "skipped" };
  $("answered").hidden = !given;
  if (given) $("answered").textContent = `You answered: ${said[given.action] ?? given.label}. Another answer replaces it.`;
  if (current) listClasses();
}

function showBoxes(given) {
  const own = answers.boxesIn(current?.image).filter((event) => event.action === "draw" || event.question !== current.id);
  const known = (current?.known ?? []).filter((other) => other.question !== current.id);
  const gone = finishing && given?.action === "reject";
  stage.show({
    box: drawn ?? (gone ? null : draft),
    label: drawn ? "new object" : given ? given.label || "no object" : current?.label,
    others: [...known, ...own],
  });
}

function showQuestion() {
  if (drawn) showHeading("What is the object that you drew?");
  else if (finishing) showHeading("Draw every object that has no box yet");
  else showHeading("Is this “", current.label, "”?");
  if (drawing || drawn || finishing) $("why").hidden = true;
}

function showButtons(given) {
  const possible = Boolean(current?.box) && !drawing && !drawn;
  const moved = possible && draft.some((side, at) => side !== current.box[at]);
  const drawOthers = finishing && (!current?.box || Boolean(given));
  $("accept").hidden = $("reject").hidden = $("finish").hidden = drawOthers;
  $("finished").hidden = !drawOthers;
  $("accept").disabled = $("reject").disabled = !possible;
  $("accept").firstElementChild.textContent = moved ? "Save box" : "Yes";
  $("verdict").hidden = !current;
  $("relabel").hidden = !current || (!drawn && (!current.box || Boolean(drawing)));
  $("relabel-title").textContent = drawn ? "Class of the drawn object" : "It is something else";
  $("points").disabled = !current?.box;
  $("reset").disabled = !(moved || drawing || drawn);
  $("grip").disabled = !(draft || drawn);
  $("grip").firstElementChild.textContent = `Arrows: ${GRIPS[grip][0]}`;
  for (const id of ["finish", "draw", "skip"]) $(id).disabled = !current;
  $("previous").disabled = current ? trail.indexOf(current.id) <= 0 : !trail.length;
  $("undo").disabled = !answers.events.length;
}

function hint() {
  if (!current) return "";
  if (drawn) return "Choose its class";
  const count = stage.shown.points?.length ?? 0;
  if (drawing) return `Click the ends of the object: top, left, bottom, right (${count} of 4)`;
  if (finishing && current.box && !answers.verdictOn(current.id)) return "Say what the orange box shows, then draw the others";
  return "";
}

function listClasses() {
  const shares = new Map(drawn ? [] : current.classes);
  const label = drawn ? "" : (answers.verdictOn(current.id)?.label ?? current.label);
  return showClasses(names, { text: $("search").value, current: label, shares, choose });
}

function count(now) {
  progress = now;
  const waiting = outbox?.waiting.filter(({ action }) => action !== "undo" && action !== "draw").length ?? 0;
  showProgress(progress, waiting);
}

function announce(text, visible = false) {
  $("announce").textContent = text;
  if (visible) $("hint").textContent = text;
}

const ACTIONS = {
  accept,
  reject: () => current?.box && !drawing && !drawn && judge("reject", {}),
  points: () => current?.box && setDrawing(drawing === "box" ? null : "box"),
  grip: () => { grip = (grip + 1) % GRIPS.length; refresh(); },
  reset: escape,
  draw: () => current && setDrawing(drawing === "object" && !finishing ? null : "object"),
  finish,
  finished: finish,
  previous: () => step(-1),
  next: () => step(1),
  skip: () => { if (current) { answer("skip"); forward(); } },
  undo,
  help: () => $("keys").showModal(),
  "zoom-in": () => stage.zoom(1.4),
  "zoom-out": () => stage.zoom(1 / 1.4),
  "zoom-fit": () => stage.fit(),
  "zoom-box": () => (drawn ?? draft) && stage.look(drawn ?? draft),
};

const KEYBOARD = {
  actions: ACTIONS,
  turning,
  nudge,
  points: (key) => {
    const set = drawing && !(key === "enter" && finishing); // Enter finishes the image
    if (set) stage.point(stage.shown.cursor);
    return set;
  },
  number: (digit) => names[digit - 1] && choose(names[digit - 1]),
  firstFound: () => {
    const [first] = listClasses();
    if (first !== undefined) choose(first);
    return first !== undefined;
  },
};

for (const [id, action] of Object.entries(ACTIONS)) {
  $(id).addEventListener("click", (event) => {
    if (!turning()) action();
    if (event.detail && id !== "help") $("stage").focus({ preventScroll: true }); // by mouse: Enter is an answer again
  });
}
$("search").addEventListener("input", listClasses);
listenToKeys(KEYBOARD);
start().catch(() => showHeading("The server does not answer. ", "", "Reload the page when it runs again."));
