// The image with its boxes: zoom, panning, dragging a box, and clicking extreme points. Boxes are xyxy in image pixels.

const SVG = "http://www.w3.org/2000/svg";
const HANDLES = [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1], [0.5, 1], [0, 1], [0, 0.5]]; // of a box's width and height
const SLACK = 4; // pixels of the screen that a click may wander

export class Stage {
  // `moved(box)` hears every change of the box by hand, `pointed(points)` every extreme point.
  constructor(root, { moved, pointed }) {
    Object.assign(this, { root, moved, pointed });
    this.image = root.querySelector("img");
    this.svg = root.querySelector("svg");
    this.size = [1, 1];
    this.view = { scale: 1, x: 0, y: 0 };
    this.shown = { box: null, label: "", others: [], points: null, cursor: null };
    new ResizeObserver(() => this.fitted && this.fit()).observe(root);
    root.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    root.addEventListener("pointerdown", (event) => this.press(event));
    root.addEventListener("pointermove", (event) => this.drag?.move(event));
    for (const name of ["pointerup", "pointercancel"]) root.addEventListener(name, (event) => this.release(event));
  }

  open(address, size, alt) {
    this.size = size;
    if (this.image.getAttribute("src") !== address) this.image.src = address;
    this.image.alt = alt;
    this.image.width = size[0];
    this.image.height = size[1];
    this.drag = null;
    this.fit();
  }

  show(changes) {
    Object.assign(this.shown, changes);
    this.paint();
  }

  // --- view

  fit() {
    this.fitted = true;
    this.frame([0, 0, ...this.size], 0.97);
  }

  look(box) {
    this.fitted = false;
    const pad = 0.75 * Math.max(box[2] - box[0], box[3] - box[1], 8);
    this.frame([box[0] - pad, box[1] - pad, box[2] + pad, box[3] + pad], 1);
  }

  frame([x1, y1, x2, y2], part) {
    const { clientWidth: width, clientHeight: height } = this.root;
    const scale = Math.min(part * Math.min(width / (x2 - x1), height / (y2 - y1)), 40);
    this.view = { scale, x: width / 2 - (scale * (x1 + x2)) / 2, y: height / 2 - (scale * (y1 + y2)) / 2 };
    this.paint();
  }

  zoom(factor, at = [this.root.clientWidth / 2, this.root.clientHeight / 2]) {
    this.fitted = false;
    const { scale, x, y } = this.view;
    const next = Math.min(Math.max(scale * factor, 0.05), 60);
    this.view = { scale: next, x: at[0] - ((at[0] - x) * next) / scale, y: at[1] - ((at[1] - y) * next) / scale };
    this.paint();
  }

  wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), this.place(event));
  }

  place(event) {
    const frame = this.root.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  }

  toImage([x, y]) {
    const { scale, x: left, y: top } = this.view;
    return [this.inside((x - left) / scale, 0), this.inside((y - top) / scale, 1)];
  }

  inside(value, axis) {
    return Math.min(Math.max(value, 0), this.size[axis]);
  }

  // --- pointer

  press(event) {
    if (event.button || event.target.closest("button")) return;
    this.root.setPointerCapture(event.pointerId);
    const start = this.place(event);
    const handle = event.target.dataset?.handle;
    const { box, points } = this.shown;
    const from = { ...this.view };
    let far = false;
    const shift = (now) => [0, 1].map((axis) => (now[axis] - start[axis]) / this.view.scale);
    const move = (now) => {
      far ||= Math.hypot(now[0] - start[0], now[1] - start[1]) > SLACK;
      if (!far) return;
      if (!points && box && handle) this.moved(this.stretched(box, HANDLES[handle], shift(now)));
      else if (!points && box && this.covers(start)) this.moved(this.shifted(box, shift(now)));
      else {
        this.fitted = false;
        this.view = { ...from, x: from.x + now[0] - start[0], y: from.y + now[1] - start[1] };
        this.paint();
      }
    };
    this.drag = { move: (its) => move(this.place(its)), end: () => !far && points && this.point(this.toImage(start)) };
  }

  release(event) {
    const { drag } = this;
    this.drag = null;
    if (event.type === "pointerup") drag?.end();
  }

  point(at) {
    const points = [...(this.shown.points ?? []), at];
    this.show({ points });
    this.pointed(points);
  }

  covers(at) {
    const [x, y] = this.toImage(at);
    const [x1, y1, x2, y2] = this.shown.box;
    return x >= x1 && x <= x2 && y >= y1 && y <= y2;
  }

  shifted([x1, y1, x2, y2], [dx, dy]) {
    const right = Math.min(Math.max(dx, -x1), this.size[0] - x2);
    const down = Math.min(Math.max(dy, -y1), this.size[1] - y2);
    return [x1 + right, y1 + down, x2 + right, y2 + down];
  }

  // The box with the sides at a handle moved; a side stays a pixel away from the other one.
  stretched([x1, y1, x2, y2], [atX, atY], [dx, dy]) {
    return [
      atX === 0 ? Math.min(this.inside(x1 + dx, 0), x2 - 1) : x1,
      atY === 0 ? Math.min(this.inside(y1 + dy, 1), y2 - 1) : y1,
      atX === 1 ? Math.max(this.inside(x2 + dx, 0), x1 + 1) : x2,
      atY === 1 ? Math.max(this.inside(y2 + dy, 1), y1 + 1) : y2,
    ];
  }

  // --- painting

  paint() {
    const { scale, x, y } = this.view;
    this.image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.image.classList.toggle("pixels", scale > 6);
    this.svg.replaceChildren();
    for (const other of this.shown.others) this.paintBox(other.box, other.label, "known");
    const { box, label, points, cursor } = this.shown;
    if (box) this.paintBox(box, label, points ? "faint" : "asked");
    if (box && !points) HANDLES.forEach((_, number) => this.paintHandle(box, number));
    for (const point of points ?? []) this.paintPoint(point, "point");
    if (points && cursor) this.paintPoint(cursor, "cursor");
  }

  paintBox(box, label, kind) {
    const [x1, y1] = this.toScreen(box), [x2, y2] = this.toScreen(box.slice(2));
    const group = this.add(this.svg, "g", { class: kind });
    const sides = { x: x1, y: y1, width: Math.max(x2 - x1, 1), height: Math.max(y2 - y1, 1) };
    for (const part of ["halo", "line"]) this.add(group, "rect", { ...sides, class: part });
    if (label) this.paintTag(group, label, x1, y1, kind === "known" ? 16 : 20);
  }

  paintTag(group, label, x, y, height) {
    const tag = this.add(group, "g", { class: "tag" });
    const plate = this.add(tag, "rect", { height, rx: 3 });
    const text = this.add(tag, "text", { x: 5, y: height - 5 });
    text.textContent = label;
    const width = text.getComputedTextLength() + 10;
    plate.setAttribute("width", width);
    const left = Math.max(2, Math.min(x - 1, this.root.clientWidth - width - 2));
    tag.setAttribute("transform", `translate(${left}, ${y > height + 6 ? y - height - 2 : y + 3})`);
  }

  paintHandle(box, number) {
    const [atX, atY] = HANDLES[number];
    const [x, y] = this.toScreen([box[0] + atX * (box[2] - box[0]), box[1] + atY * (box[3] - box[1])]);
    const [width, height] = [box[2] - box[0], box[3] - box[1]].map((side) => side * this.view.scale);
    const crowded = (atX === 0.5 && width < 40) || (atY === 0.5 && height < 40);
    if (crowded) return;
    const side = Math.max(4, Math.min(8, Math.min(width, height) / 5));
    this.add(this.svg, "rect", { x: x - side / 2, y: y - side / 2, width: side, height: side, class: "handle" });
    const reach = Math.min(11, Math.max(6, Math.min(width, height) / 3));
    this.add(this.svg, "circle", { cx: x, cy: y, r: reach, class: `grip grip-${number % 4}`, "data-handle": number });
  }

  paintPoint(at, kind) {
    const [x, y] = this.toScreen(at);
    if (kind === "point") this.add(this.svg, "circle", { cx: x, cy: y, r: 5, class: kind });
    else {
      for (const part of ["halo", "line"]) {
        this.add(this.svg, "path", { d: `M${x - 14} ${y}h28M${x} ${y - 14}v28`, class: `cursor ${part}` });
      }
    }
  }

  toScreen([x, y]) {
    const { scale, x: left, y: top } = this.view;
    return [x * scale + left, y * scale + top];
  }

  add(parent, name, attributes) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return parent.appendChild(element);
  }
}
