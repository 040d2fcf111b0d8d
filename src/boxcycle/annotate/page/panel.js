// What stands beside the image: the question, its reasons, the classes, progress. Names are set as text, never as HTML.

export const $ = (id) => document.getElementById(id);

const OFFERED = 0.2; // probability from which a class is said to be possible
const FOUND = 0.5; // probability from which a class is said to be found again

export function make(name, text, attributes = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

export function showHeading(text, name = "", rest = "") {
  $("question").replaceChildren(text, make("strong", name), rest);
}

// Classes in the order of their number keys: as the data list them, the likeliest ones first where there are many.
export function ordered(classes, question) {
  if (classes.length <= 9) return classes;
  const likely = (question?.classes ?? []).map(([name]) => name).filter((name) => classes.includes(name));
  return [...likely, ...classes.filter((name) => !likely.includes(name))];
}

export function showClasses(names, { text, current, shares, choose }) {
  const wanted = text.trim().toLowerCase();
  const found = names.filter((name) => name.toLowerCase().includes(wanted));
  $("classes").replaceChildren(...found.map((name) => {
    const chip = make("button", "", { type: "button", "aria-pressed": String(name === current) });
    const number = names.indexOf(name) + 1;
    if (number <= 9 && !wanted) chip.append(make("kbd", String(number)));
    chip.append(make("span", name));
    if (shares.get(name) >= 0.005) chip.append(make("small", percent(shares.get(name))));
    chip.addEventListener("click", () => choose(name));
    return chip;
  }));
  if (!found.length) $("classes").append(make("p", "No class has that in its name.", { class: "note" }));
  return found;
}

export function showReasons(question) {
  const sentences = question?.box ? reasons(question) : [];
  $("why").hidden = !sentences.length;
  $("reason").textContent = sentences.join(" ");
  $("pastes").replaceChildren(...(question?.pastes ?? []).map((found, number) => {
    const item = document.createElement("li");
    const missed = found < FOUND;
    const says = missed ? (found ? percent(found) : "missed") : percent(found);
    const address = `pastes/${encodeURIComponent(question.id)}/${number}`;
    item.append(make("img", "", { src: address, alt: `Pasted into another image: ${missed ? "not found again" : "found again"}, ${says}`, loading: "lazy" }));
    item.append(make("span", `${missed ? "✕" : "✓"} ${says}`, { class: missed ? "missed" : "found" }));
    return item;
  }));
}

function reasons({ classes, consistency, pastes, label }) {
  const said = [];
  const possible = classes.filter(([, share]) => share >= OFFERED);
  if (possible.length > 1) {
    said.push(`The detector is torn between ${possible.map(([name, share]) => `${name} (${percent(share)})`).join(" and ")}.`);
  } else if (classes.length) said.push(`The detector says ${label} with ${percent(classes[0][1])}.`);
  const again = pastes.filter((found) => found >= FOUND).length;
  if (pastes.length) said.push(`Pasted into ${pastes.length} other images, it was found again in ${again || "none"}.`);
  else if (consistency === null) said.push("It was not tested in other images.");
  else said.push(`How surely it was found again in other images: ${percent(consistency)}.`);
  return said;
}

export function showProgress({ total, left, pace }, waiting) {
  const open = Math.max(left - waiting, 0);
  $("bar").max = Math.max(total, 1);
  $("bar").value = total - open;
  const minutes = pace === null ? "" : ` · ${open ? timeLeft((open * pace) / 60) : "done"}`;
  $("count").textContent = `${total - open} of ${total}${minutes}`;
}

export function showSaved(status, waiting) {
  const many = `${waiting} answer${waiting === 1 ? " waits" : "s wait"} here`;
  const text = {
    saved: "✓ Saved",
    saving: "Saving …",
    offline: `⚠ No connection: ${many}`,
    stale: `⚠ Open the new address that was printed${waiting ? `: ${many}` : ""}`,
  }[status] ?? `⚠ Not stored: ${status.refused}`;
  $("saved").textContent = text;
  $("saved").className = text.startsWith("⚠") ? "trouble" : "";
}

export function percent(share) {
  return `${Math.round(100 * share)}%`;
}

function timeLeft(minutes) {
  return minutes < 1 ? "under a minute left" : `${Math.round(minutes)} min left`;
}
