// Requests the page-table entries of pages from Python, and keeps them until the pages change.

const MOST_ENTRIES = 5000;
const PAUSE = 40; // ms: the cursor and the pointer pass many pages quickly

export class EntryCache {
  constructor(model, listen) {
    this.model = model;
    this.entries = new Map();
    this.watchers = new Set(); // called with the id of an entry that has arrived
    listen.model("msg:custom", (message) => {
      if (!message.entry) return;
      if (this.entries.size > MOST_ENTRIES) this.entries.clear();
      this.entries.set(message.id, message.entry);
      for (const watcher of this.watchers) watcher(message.id);
    });
  }

  get(id) {
    return this.entries.get(id);
  }

  forget() {
    this.entries.clear();
  }
}

// One reader of the cache, which wants one entry at a time: the page under the cursor, or the page under the pointer.
export class EntryReader {
  // show(entry, page, which) is called when the entry is there.
  constructor(cache, listen, show) {
    this.cache = cache;
    this.show = show;
    this.timer = 0;
    this.wanted = null;
    const arrived = (id) => {
      if (this.wanted && id === this.wanted.id) this.deliver();
    };
    cache.watchers.add(arrived);
    listen.also(() => cache.watchers.delete(arrived));
    listen.also(() => clearTimeout(this.timer));
  }

  want(page, which) {
    const id = `${which} ${page}`;
    this.wanted = { id, page, which };
    clearTimeout(this.timer);
    if (this.cache.get(id)) this.deliver();
    else this.timer = setTimeout(() => this.cache.model.send({ ask: "entry", page, which, id }), PAUSE);
  }

  stop() {
    this.wanted = null;
    clearTimeout(this.timer);
  }

  deliver() {
    const { id, page, which } = this.wanted;
    this.show(this.cache.get(id), page, which);
  }
}
