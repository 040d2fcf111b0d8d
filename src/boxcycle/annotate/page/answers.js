// What an annotator has answered: the events that count, those on their way to the server included.

export class Answers {
  constructor(events) {
    this.events = events;
  }

  // An event's effect, before the server has it; `image`: its question's, or null where that is not known.
  add(event, image) {
    if (event.action === "undo") this.events = this.events.filter((other) => other.id !== event.undoes);
    else this.events.push({ ...event, image });
  }

  last() {
    return this.events.at(-1);
  }

  // The last answer to a question itself: not an object drawn besides.
  verdictOn(id) {
    return this.events.findLast(({ question, action }) => question === id && action !== "draw" && action !== "finish");
  }

  finished(image) {
    return this.events.some((event) => event.action === "finish" && event.image === image);
  }

  boxesIn(image) {
    return this.events.filter((event) => event.label && event.box && event.image === image);
  }
}
