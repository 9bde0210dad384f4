// Loads entries into a LogWindow: pages of the store in both directions, and the live stream. It does not use the DOM.
import { Tail } from "./logs-source.js";
import { LIMIT, LogWindow, rowOf } from "./logs-window.js";

const FIRST_PAGE = 400;
const NEXT_PAGE = 500;
const MAX_RECENT = 2000;
const CATCH_UP_DELAY_MS = 2000;
// The stream is resumed where at most so many ids are newer; else loading the latest page is faster.
const MAX_RESUMED = 20000;
const CATCH_UP_PAGES = 4;

export class LogFeed {
  /**
   * Callbacks: `onChange` when the window has changed, with what caused it ("loaded", "more", "skipped"); `onArrival`
   * with rows from the live stream; `onState` as for Tail; `onError` with errors. `isFollowing` returns whether the
   * list stays at its end.
   */
  constructor(source, { onChange, onArrival, onState, onError, isFollowing }) {
    this.source = source;
    this.onChange = onChange;
    this.onArrival = onArrival;
    this.onError = onError;
    this.isFollowing = isFollowing;
    this.window = new LogWindow(LIMIT);
    this.tail = new Tail(source, {
      onEntries: (entries) => this.onEntries(entries),
      onSkipped: (skipped) => this.onSkipped(skipped),
      onState,
    });
    this.recent = [];
    this.overflowed = 0;
    this.loading = false;
    this.generation = 0;
    this.skippedLines = 0;
    this.suspendedAfter = null;
  }

  /**
   * Replaces the window by the newest entries that match `parameters`, or by those around the cursor `at`; `live`
   * follows new ones, too. Resolves when they are loaded; errors go to `onError`. A later call cancels an earlier one.
   */
  async load(parameters, { at = "", live = false } = {}) {
    const generation = (this.generation += 1);
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
      // The stream is started before the page is read, so that no entry is missed between them.
      await this.tail.start(parameters);
      if (generation !== this.generation) {
        return;
      }
    } else {
      this.tail.stop();
    }
    try {
      const pages = await this.firstPages(at, signal);
      if (generation !== this.generation) {
        return;
      }
      this.window.clear();
      const [older, newer] = pages;
      this.window.merge(older.logs.map(rowOf));
      this.setOlder(older);
      if (newer) {
        this.window.merge(newer.logs.map(rowOf));
        this.setNewer(newer, FIRST_PAGE);
      }
      this.loading = false;
      this.flushRecent();
    } catch (error) {
      if (generation === this.generation) {
        this.loading = false;
        if (error.name !== "AbortError") {
          this.window.clear();
          this.onError(error);
        }
      }
    }
    if (generation === this.generation) {
      this.onChange("loaded");
    }
  }

  firstPages(at, signal) {
    const page = (more) => this.source.get("logs", { ...this.parameters, total: "false", limit: FIRST_PAGE, ...more }, signal);
    if (!at) {
      return Promise.all([page({})]);
    }
    const [micros, id] = at.split("-");
    // The entry at the cursor itself comes with the older ones.
    return Promise.all([page({ cursor: `${micros}-${Number(id) + 1}` }), page({ after: at })]);
  }

  setOlder(page) {
    this.window.older = page.next_cursor !== null;
    this.window.olderCursor = page.next_cursor;
    this.window.searchedBackTo = page.searched_back_to ?? null;
  }

  setNewer(page, limit) {
    this.window.newer = page.logs.length >= limit || Boolean(page.searched_up_to);
    this.window.newerCursor = page.prev_cursor ?? this.window.last?.cursor;
  }

  async loadOlder() {
    if (this.loading || this.loadingMore || !this.window.older) {
      return;
    }
    await this.loadMore({ cursor: this.window.olderCursor }, (page) => {
      this.window.merge(page.logs.map(rowOf));
      this.setOlder(page);
      if (!this.isFollowing()) {
        this.window.dropNewest();
      }
    });
  }

  async loadNewer() {
    if (this.loading || this.loadingMore || !this.window.newer || !this.window.last) {
      return;
    }
    const before = this.overflowed;
    // A range that was searched without a match is skipped, but rows that were dropped are read again.
    const { last, newerCursor } = this.window;
    const after = newerCursor && Number(newerCursor.split("-")[0]) > last.micros ? newerCursor : last.cursor;
    await this.loadMore({ after }, (page) => {
      this.window.merge(page.logs.map(rowOf));
      this.setNewer(page, NEXT_PAGE);
      this.window.newer ||= this.overflowed !== before;
      if (this.window.rows.length > this.window.limit) {
        this.window.dropOldest();
      }
      if (!this.window.newer) {
        this.flushRecent();
      }
    });
  }

  async loadMore(parameters, addPage) {
    const { generation } = this;
    this.loadingMore = true;
    try {
      const page = await this.source.get("logs", { ...this.parameters, total: "false", limit: NEXT_PAGE, ...parameters }, this.aborting.signal);
      if (generation === this.generation) {
        addPage(page);
      }
    } catch (error) {
      if (generation === this.generation && error.name !== "AbortError") {
        this.onError(error);
      }
    } finally {
      this.loadingMore = false;
    }
    if (generation === this.generation) {
      this.onChange("more");
    }
  }

  onEntries(entries) {
    const rows = entries.map(rowOf);
    this.recent = this.recent.concat(rows);
    if (this.recent.length > MAX_RECENT) {
      this.overflowed += this.recent.length - MAX_RECENT;
      this.recent.splice(0, this.recent.length - MAX_RECENT);
    }
    if (!this.loading) {
      this.window.append(rows, this.isFollowing());
    }
    this.onArrival(rows);
  }

  /** Adds entries that arrived while a page was loading. */
  flushRecent() {
    if (this.overflowed && this.recent.length && this.window.last?.micros < this.recent[0].micros) {
      // Older ones were dropped: there may be a gap, which is read from the store on scrolling.
      this.window.newer = true;
      return;
    }
    this.window.append(this.recent, this.isFollowing());
  }

  /** Reads the entries from the store that the stream left out. */
  onSkipped(skipped) {
    this.skippedLines += skipped.count;
    this.window.newer = true;
    clearTimeout(this.catchUpTimer);
    this.catchUpTimer = setTimeout(() => this.catchUp(), CATCH_UP_DELAY_MS);
    this.onChange("skipped");
  }

  async catchUp() {
    for (let pages = 0; pages < CATCH_UP_PAGES && this.window.newer && this.isFollowing(); pages += 1) {
      await this.loadNewer();
    }
    if (this.window.newer && this.isFollowing()) {
      await this.load(this.parameters, { live: this.live });
    }
  }

  /** Closes the stream while the document is hidden, since browsers limit connections per host. */
  suspend() {
    if (this.live && this.suspendedAfter === null) {
      this.suspendedAfter = this.tail.lastId;
      this.tail.stop();
    }
  }

  /** Resumes after the last entry that was received, once the document is visible again. */
  async resume() {
    const since = this.suspendedAfter;
    this.suspendedAfter = null;
    if (!this.live) {
      return;
    }
    if (since === null) {
      await this.load(this.parameters, { at: this.at, live: true });
      return;
    }
    try {
      const { logs } = await this.source.get("logs", { limit: 1, total: "false" });
      if (logs.length && logs[0].id - since > MAX_RESUMED) {
        if (this.isFollowing()) {
          await this.load(this.parameters, { live: true });
        } else {
          this.window.newer = true;
          await this.tail.start(this.parameters);
          this.onChange("more");
        }
        return;
      }
    } catch {
      // The stream reports the same error and retries.
    }
    await this.tail.start(this.parameters, since);
  }
}
