// What a page that is loaded again needs to go on: kept by the browser, for this tab alone, and never sent anywhere.

const DAY_MS = 24 * 3600 * 1000;

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

export class Storage {
  // null where the browser keeps nothing, as in some private windows.
  static async open() {
    try {
      const request = indexedDB.open("echostream", 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("sessions");
        request.result.createObjectStore("outputs");
      };
      const storage = new Storage();
      storage.db = await done(request);
      storage.tab = sessionStorage.tab ??= crypto.randomUUID?.() ?? String(Math.random());
      storage.count = 0; // of the outputs kept, which is the number of the last one
      storage.isSilent = false; // it says nothing
      await storage.forgetOld();
      return storage;
    } catch {
      return null;
    }
  }

  store(name) {
    return this.db.transaction(name, "readwrite").objectStore(name);
  }

  async forgetOld() {
    for (const tab of await done(this.store("sessions").getAllKeys())) {
      const session = await done(this.store("sessions").get(tab));
      if (tab !== this.tab && Date.now() - session.time > DAY_MS) await this.forget(tab);
    }
  }

  async forget(tab = this.tab) {
    if (tab === this.tab) {
      this.count = 0;
      this.isSilent = false;
    }
    this.store("sessions").delete(tab);
    await done(this.store("outputs").delete(IDBKeyRange.bound([tab], [tab, []])));
  }

  // The session and an output that it has had, or null: both or neither, so that none is missed or comes twice.
  save(session, output) {
    const both = this.db.transaction(["sessions", "outputs"], "readwrite");
    both.objectStore("sessions").put({ ...session, time: Date.now() }, this.tab);
    if (!output) return;
    const { words, source_words: heard, sentence_ends: ends } = output.message;
    const isSilent = !output.samples && !words.length && !heard.length && !ends?.length;
    // Of outputs in a row that say nothing the last one is enough: an hour of silence is one record.
    if (!isSilent || !this.isSilent) this.count++;
    this.isSilent = isSilent;
    both.objectStore("outputs").put(output, [this.tab, this.count]);
  }

  // { session, outputs }; null if there is none.
  async load() {
    const session = await done(this.store("sessions").get(this.tab));
    if (!session) return null;
    const outputs = await done(this.store("outputs").getAll(IDBKeyRange.bound([this.tab], [this.tab, []])));
    this.count = outputs.length;
    this.isSilent = false;
    return { session, outputs };
  }
}
