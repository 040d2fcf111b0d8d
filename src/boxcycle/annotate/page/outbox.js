// Answers on their way: kept in this browser until the server says that they are on its disk.

const PAUSE = 2000; // milliseconds between attempts

export class Outbox {
  // `changed(status)` hears "saving", "saved", "offline", "stale" or {refused: sentence}; `stored(reply)` each reply.
  constructor(key, { changed, stored }) {
    Object.assign(this, { key, changed, stored, busy: false });
    try {
      this.waiting = JSON.parse(localStorage.getItem(key)) ?? [];
    } catch {
      this.waiting = [];
    }
    addEventListener("online", () => this.send());
    if (this.waiting.length) this.send();
  }

  add(event) {
    this.waiting.push(event);
    this.keep();
    this.changed("saving");
    this.send();
  }

  async send() {
    if (this.busy) return;
    this.busy = true;
    clearTimeout(this.timer);
    while (this.waiting.length && (await this.sendFirst()));
    this.busy = false;
  }

  // Whether to go on with the next one.
  async sendFirst() {
    let reply;
    try {
      reply = await fetch("answers", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(this.waiting[0]),
      });
      const content = await reply.json().catch(() => ({}));
      if (reply.ok) {
        this.drop();
        this.stored(content);
        if (!this.waiting.length) this.changed("saved");
        return true;
      }
      if (reply.status === 403) return this.changed("stale"), false;
      if (reply.status < 500) {
        this.drop();
        this.changed({ refused: typeof content.detail === "string" ? content.detail : "it is no valid answer" });
        return true;
      }
    } catch {
      // no connection: as with an error of the server, try again
    }
    this.changed("offline");
    this.timer = setTimeout(() => this.send(), PAUSE);
    return false;
  }

  // When nothing waits any more, or after three seconds.
  async settled() {
    for (let turn = 0; this.waiting.length && turn < 60; turn += 1) await new Promise((done) => setTimeout(done, 50));
  }

  drop() {
    this.waiting.shift();
    this.keep();
  }

  keep() {
    try {
      localStorage.setItem(this.key, JSON.stringify(this.waiting));
    } catch {
      // private mode: what waits is lost with the tab
    }
  }
}
