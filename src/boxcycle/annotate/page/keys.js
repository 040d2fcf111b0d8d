// What the keys mean: an action, a class by its number, and arrows, which move the box or the cross.

import { $ } from "./panel.js";

const KEYS = {
  a: "accept", enter: "accept", r: "reject", e: "points", b: "grip", escape: "reset", d: "draw", f: "finish", p: "previous",
  n: "next", s: "skip", u: "undo", "?": "help", "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", 0: "zoom-fit", z: "zoom-box",
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// `page`: `actions` by name; `turning()`, while no key counts; `nudge(right, down, pixels)`; `points(key)`, whether the
// key has set an extreme point; `number(digit)` and `firstFound()`, which choose a class, the second if there is one.
export function listenToKeys(page) {
  addEventListener("keydown", (event) => {
    if ($("keys").open || event.altKey || event.metaKey || page.turning()) return;
    const understood = event.target === $("search") ? searching(event, page) : answering(event, page);
    if (understood) event.preventDefault();
  });
}

// Each returns whether the key meant something here; if not, the browser does with it what it does.
function searching(event, page) {
  const key = event.key.toLowerCase(), text = $("search").value;
  if (key === "enter") return text.trim() !== "" && page.firstFound();
  if (key === "escape") $("stage").focus({ preventScroll: true });
  else if (/^[1-9]$/.test(key) && !text) page.number(key);
  else return false;
  return true;
}

function answering(event, page) {
  const key = event.key.toLowerCase();
  const presses = key === " " || key === "enter";
  if (event.ctrlKey && key !== "z") return false;
  if (event.ctrlKey) page.actions.undo();
  else if (ARROWS[event.key]) page.nudge(...ARROWS[event.key], event.shiftKey ? 10 : 1);
  else if (presses && event.target.closest("button")) return false;
  else if (presses && page.points(key)) return true;
  else if (key === "l" || key === "/") $("search").focus();
  else if (/^[1-9]$/.test(key)) page.number(key);
  else if (KEYS[key]) page.actions[KEYS[key]]();
  else return false;
  return true;
}
