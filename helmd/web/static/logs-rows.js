// A virtual list: only the visible items are in the document. Heights differ, since a line may be wrapped or opened,
// and are estimated until they are measured.

// Items that are rendered above and below the visible ones.
const OVERSCAN = 8;

export class Rows {
  /**
   * `scroller` contains `all`, whose height is that of all items, which contains `rows` with the rendered items. `make`
   * creates the element of an item, again when the value of `stamp` for the item has changed; `onScrolled` is called
   * with whether the user scrolled.
   */
  constructor(scroller, all, rows, { make, stamp, onScrolled }) {
    this.scroller = scroller;
    this.all = all;
    this.rows = rows;
    this.make = make;
    this.stamp = stamp;
    this.onScrolled = onScrolled;
    this.items = [];
    this.heights = new Map();
    this.tops = new Float64Array(1);
    this.rendered = new Map();
    this.rowHeight = 22;
    this.follows = true;
    this.frame = 0;
    scroller.addEventListener("scroll", () => this.onScroll(), { passive: true });
    new ResizeObserver(() => this.resized()).observe(scroller);
  }

  resized() {
    const height = Number.parseFloat(getComputedStyle(this.scroller).getPropertyValue("--helm-row")) || 22;
    const width = this.scroller.clientWidth;
    if (height !== this.rowHeight || width !== this.width) {
      this.rowHeight = height;
      this.width = width;
      this.invalidate();
    }
    this.draw();
  }

  /** Discards the measured heights and elements, after the width or the display of lines has changed. */
  invalidate() {
    this.heights.clear();
    for (const each of this.rendered.values()) {
      each.node.remove();
    }
    this.rendered.clear();
  }

  heightOf(item) {
    return this.heights.get(item.key) ?? this.rowHeight;
  }

  updateTops() {
    const count = this.items.length;
    if (this.tops.length < count + 1) {
      this.tops = new Float64Array(Math.max(count + 1, this.tops.length * 2));
    }
    let top = 0;
    for (let at = 0; at < count; at += 1) {
      this.tops[at] = top;
      top += this.heightOf(this.items[at]);
    }
    this.tops[count] = top;
    this.total = top;
    this.all.style.height = `${top}px`;
  }

  /** The index of the item at a distance from the top, in pixels. */
  at(top) {
    let low = 0;
    let high = this.items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tops[middle + 1] <= top) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return Math.min(low, Math.max(0, this.items.length - 1));
  }

  /** The first visible item and how far it is scrolled, to restore the position after items or heights have changed. */
  anchor() {
    if (!this.items.length) {
      return null;
    }
    const index = this.at(this.scroller.scrollTop);
    return { index, offset: this.scroller.scrollTop - this.tops[index] };
  }

  set(items, keep = true) {
    const anchor = keep && !this.follows ? this.anchor() : null;
    const anchors = anchor ? this.items.slice(anchor.index, anchor.index + 200) : [];
    this.items = items;
    this.index = null;
    this.updateTops();
    if (this.follows) {
      this.toEnd();
    } else if (anchor) {
      const found = anchors.findIndex((item) => this.indexOf(item.key) >= 0);
      if (found >= 0) {
        this.scrollTo(this.tops[this.indexOf(anchors[found].key)] + (found === 0 ? anchor.offset : 0));
      }
    }
    this.draw();
  }

  indexOf(key) {
    if (!this.index) {
      this.index = new Map(this.items.map((item, at) => [item.key, at]));
    }
    return this.index.get(key) ?? -1;
  }

  scrollTo(top) {
    const target = Math.max(0, Math.round(top));
    if (Math.abs(this.scroller.scrollTop - target) >= 1) {
      this.expectedTop = target;
      this.scroller.scrollTop = target;
    }
  }

  toEnd() {
    this.scrollTo(this.total - this.scroller.clientHeight);
  }

  get atEnd() {
    return this.scroller.scrollTop + this.scroller.clientHeight >= this.total - 4;
  }

  onScroll() {
    const ours = this.expectedTop !== undefined && Math.abs(this.scroller.scrollTop - this.expectedTop) < 2;
    this.expectedTop = undefined;
    this.draw();
    this.onScrolled(!ours);
  }

  draw() {
    if (!this.frame) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.drawNow();
      });
    }
  }

  drawNow() {
    for (let round = 0; round < 3; round += 1) {
      if (!this.render()) {
        break;
      }
      // A measured height differs from the estimate.
      const anchor = this.follows ? null : this.anchor();
      this.updateTops();
      if (this.follows) {
        this.toEnd();
      } else if (anchor) {
        this.scrollTo(this.tops[anchor.index] + anchor.offset);
      }
    }
  }

  /** Renders the visible items and measures them; returns whether a height has changed. */
  render() {
    const height = this.scroller.clientHeight || 400;
    const first = Math.max(0, this.at(this.scroller.scrollTop) - OVERSCAN);
    const last = Math.min(this.items.length - 1, this.at(this.scroller.scrollTop + height) + OVERSCAN);
    const kept = new Set();
    let before = null;
    for (let at = first; at <= last; at += 1) {
      const item = this.items[at];
      const stamp = this.stamp(item);
      let existing = this.rendered.get(item.key);
      if (!existing || existing.stamp !== stamp) {
        const node = this.make(item);
        existing?.node.replaceWith(node);
        existing = { node, stamp };
        this.rendered.set(item.key, existing);
      }
      kept.add(item.key);
      const place = before ? before.nextSibling : this.rows.firstChild;
      if (place !== existing.node) {
        this.rows.insertBefore(existing.node, place);
      }
      before = existing.node;
    }
    for (const [key, each] of this.rendered) {
      if (!kept.has(key)) {
        each.node.remove();
        this.rendered.delete(key);
      }
    }
    this.rows.style.transform = `translateY(${this.items.length ? this.tops[first] : 0}px)`;
    let changed = false;
    for (let at = first; at <= last; at += 1) {
      const { key } = this.items[at];
      const measured = this.rendered.get(key).node.offsetHeight;
      if (measured && measured !== this.heightOf(this.items[at])) {
        this.heights.set(key, measured);
        changed = true;
      }
    }
    if (this.heights.size > 20000) {
      this.heights.clear();
    }
    return changed;
  }

  /** Scrolls an item into view: by as little as possible, or with `middle` to a third of the height. */
  reveal(index, middle = false) {
    if (index < 0) {
      return;
    }
    const view = this.scroller.clientHeight;
    const top = this.tops[index];
    const bottom = top + this.heightOf(this.items[index]);
    if (middle) {
      this.scrollTo(top - view / 3);
    } else if (top < this.scroller.scrollTop) {
      this.scrollTo(top);
    } else if (bottom > this.scroller.scrollTop + view) {
      this.scrollTo(Math.min(top, bottom - view));
    }
    this.drawNow();
  }

  /** The indices of the first and the last visible item. */
  visibleRange() {
    return [this.at(this.scroller.scrollTop), this.at(this.scroller.scrollTop + this.scroller.clientHeight - 1)];
  }
}
