// Fills a window with entries: pages of the store in both directions, and what comes live. No DOM in here.
import { Tail } from "./logs-source.js";
import { LIMIT, LogWindow, rowOf } from "./logs-window.js";

const PAGE = 400;
const MORE = 500;
const RECENT = 2000;
const AGAIN_MS = 2000;
// So many ids may have come while nobody looked; beyond that the newest are loaded instead.
const RESUMABLE = 20000;
const CATCH_UP_PAGES = 4;

export class LogFeed {
  // Callbacks: `changed` when the window has changed, `arrived` with rows from the live stream, `state` as for Tail,
  // `failed` with errors; `following` returns whether the list is scrolled to its end.
  constructor(source, { changed, arrived, state, failed, following }) {
    this.source = source;
    this.changed = changed;
    this.arrived = arrived;
    this.failed = failed;
    this.following = following;
    this.window = new LogWindow(LIMIT);
    this.tail = new Tail(source, {
      heard: (entries) => this.heard(entries),
      skipped: (what) => this.skipped(what),
      state,
    });
    this.recent = [];
    this.overflowed = 0;
    this.loading = false;
    this.turn = 0;
    this.skippedLines = 0;
    this.awaySince = null;
  }

  // Loads what PARAMETERS ask for: the newest, or what is around AT; LIVE also follows what comes.
  async load(parameters, { at = "", live = false } = {}) {
    const turn = (this.turn += 1);
    this.parameters = parameters;
    this.live = live;
    this.at = at;
    this.loading = true;
    this.recent = [];
    this.overflowed = 0;
    this.aborting?.abort();
    this.aborting = new AbortController();
    const { signal } = this.aborting;
    if (live) {
      // First the place from which on entries come, so that none is between them and the page.
      await this.tail.start(parameters);
      if (turn !== this.turn) {
        return;
      }
    } else {
      this.tail.stop();
    }
    try {
      const pages = await this.firstPages(at, signal);
      if (turn !== this.turn) {
        return;
      }
      this.window.clear();
      const [older, newer] = pages;
      this.window.merge(older.logs.map(rowOf));
      this.noteOlder(older);
      if (newer) {
        this.window.merge(newer.logs.map(rowOf));
        this.noteNewer(newer, PAGE);
      }
      this.loading = false;
      this.flushRecent();
    } catch (error) {
      if (turn === this.turn) {
        this.loading = false;
        if (error.name !== "AbortError") {
          this.window.clear();
          this.failed(error);
        }
      }
    }
    if (turn === this.turn) {
      this.changed("loaded");
    }
  }

  firstPages(at, signal) {
    const page = (more) => this.source.get("logs", { ...this.parameters, total: "false", limit: PAGE, ...more }, signal);
    if (!at) {
      return Promise.all([page({})]);
    }
    const [micros, id] = at.split("-");
    // What is at the place itself comes with what is before it.
    return Promise.all([page({ cursor: `${micros}-${Number(id) + 1}` }), page({ after: at })]);
  }

  noteOlder(page) {
    this.window.older = page.next_cursor !== null;
    this.window.olderCursor = page.next_cursor;
    this.window.searchedBackTo = page.searched_back_to ?? null;
  }

  noteNewer(page, limit) {
    this.window.newer = page.logs.length >= limit || Boolean(page.searched_up_to);
    this.window.newerCursor = page.prev_cursor ?? this.window.last?.cursor;
  }

  async loadOlder() {
    if (this.loading || this.more || !this.window.older) {
      return;
    }
    await this.loadMore({ cursor: this.window.olderCursor }, (page) => {
      this.window.merge(page.logs.map(rowOf));
      this.noteOlder(page);
      if (!this.following()) {
        this.window.dropNewest();
      }
    });
  }

  async loadNewer() {
    if (this.loading || this.more || !this.window.newer || !this.window.last) {
      return;
    }
    const before = this.overflowed;
    // A range that was searched without a match is skipped, but rows that were dropped are read again.
    const { last, newerCursor } = this.window;
    const after = newerCursor && Number(newerCursor.split("-")[0]) > last.micros ? newerCursor : last.cursor;
    await this.loadMore({ after }, (page) => {
      this.window.merge(page.logs.map(rowOf));
      this.noteNewer(page, MORE);
      this.window.newer ||= this.overflowed !== before;
      if (this.window.rows.length > this.window.limit) {
        this.window.dropOldest();
      }
      if (!this.window.newer) {
        this.flushRecent();
      }
    });
  }

  async loadMore(parameters, use) {
    const { turn } = this;
    this.more = true;
    try {
      const page = await this.source.get("logs", { ...this.parameters, total: "false", limit: MORE, ...parameters }, this.aborting.signal);
      if (turn === this.turn) {
        use(page);
      }
    } catch (error) {
      if (turn === this.turn && error.name !== "AbortError") {
        this.failed(error);
      }
    } finally {
      this.more = false;
    }
    if (turn === this.turn) {
      this.changed("more");
    }
  }

  heard(entries) {
    const rows = entries.map(rowOf);
    this.recent = this.recent.concat(rows);
    if (this.recent.length > RECENT) {
      this.overflowed += this.recent.length - RECENT;
      this.recent.splice(0, this.recent.length - RECENT);
    }
    if (!this.loading) {
      this.window.append(rows, this.following());
    }
    this.arrived(rows);
  }

  // What came while a page was on its way.
  flushRecent() {
    if (this.overflowed && this.recent.length && this.window.last?.micros < this.recent[0].micros) {
      // More came than is remembered; there may be something between.
      this.window.newer = true;
      return;
    }
    this.window.append(this.recent, this.following());
  }

  // The stream left something out, which the store has.
  skipped(what) {
    this.skippedLines += what.count;
    this.window.newer = true;
    clearTimeout(this.catching);
    this.catching = setTimeout(() => this.catchUp(), AGAIN_MS);
    this.changed("skipped");
  }

  async catchUp() {
    for (let pages = 0; pages < CATCH_UP_PAGES && this.window.newer && this.following(); pages += 1) {
      await this.loadNewer();
    }
    if (this.window.newer && this.following()) {
      await this.load(this.parameters, { live: this.live });
    }
  }

  // Nobody looks: other tabs need the connection.
  rest() {
    if (this.live && this.awaySince === null) {
      this.awaySince = this.tail.lastId;
      this.tail.stop();
    }
  }

  // Somebody looks again: goes on after the last entry that was heard of.
  async wake() {
    const since = this.awaySince;
    this.awaySince = null;
    if (!this.live) {
      return;
    }
    if (since === null) {
      await this.load(this.parameters, { at: this.at, live: true });
      return;
    }
    try {
      const { logs } = await this.source.get("logs", { limit: 1, total: "false" });
      if (logs.length && logs[0].id - since > RESUMABLE) {
        if (this.following()) {
          await this.load(this.parameters, { live: true });
        } else {
          this.window.newer = true;
          await this.tail.start(this.parameters);
          this.changed("more");
        }
        return;
      }
    } catch {
      // The tail says what is wrong, and tries again.
    }
    await this.tail.start(this.parameters, since);
  }
}
