// A list of which only what can be seen is in the document. Heights differ: a line may be wrapped or opened.

const BEYOND = 8;

export class Rows {
  // SCROLLER has ALL, as high as all items together, and in it ROWS with those that are shown. MAKE gives the element
  // of an item and is asked again when `stamp` of the item has changed.
  constructor(scroller, all, rows, { make, stamp, moved }) {
    this.scroller = scroller;
    this.all = all;
    this.rows = rows;
    this.make = make;
    this.stamp = stamp;
    this.moved = moved;
    this.items = [];
    this.heights = new Map();
    this.tops = new Float64Array(1);
    this.shown = new Map();
    this.plain = 22;
    this.follows = true;
    this.frame = 0;
    this.settled = 0;
    scroller.addEventListener("scroll", () => this.onScroll(), { passive: true });
    new ResizeObserver(() => this.resized()).observe(scroller);
  }

  resized() {
    const height = Number.parseFloat(getComputedStyle(this.scroller).getPropertyValue("--helm-row")) || 22;
    const width = this.scroller.clientWidth;
    if (height !== this.plain || width !== this.width) {
      this.plain = height;
      this.width = width;
      this.forget();
    }
    this.draw();
  }

  // Discards the measured heights, after the width or the display of lines has changed.
  forget() {
    this.heights.clear();
    for (const each of this.shown.values()) {
      each.node.remove();
    }
    this.shown.clear();
  }

  heightOf(item) {
    return this.heights.get(item.key) ?? this.plain;
  }

  layOut() {
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

  // The index of the item at a height.
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

  // What is at the top now, to be there again once other items have come or gone.
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
    this.layOut();
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
    const wanted = Math.max(0, Math.round(top));
    if (Math.abs(this.scroller.scrollTop - wanted) >= 1) {
      this.expected = wanted;
      this.scroller.scrollTop = wanted;
    }
  }

  toEnd() {
    this.scrollTo(this.total - this.scroller.clientHeight);
  }

  get atEnd() {
    return this.scroller.scrollTop + this.scroller.clientHeight >= this.total - 4;
  }

  onScroll() {
    const ours = this.expected !== undefined && Math.abs(this.scroller.scrollTop - this.expected) < 2;
    this.expected = undefined;
    this.draw();
    this.moved(!ours);
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
      // A height was not as expected.
      const anchor = this.follows ? null : this.anchor();
      this.layOut();
      if (this.follows) {
        this.toEnd();
      } else if (anchor) {
        this.scrollTo(this.tops[anchor.index] + anchor.offset);
      }
    }
  }

  // Puts what can be seen into the document; whether a height has changed.
  render() {
    const height = this.scroller.clientHeight || 400;
    const first = Math.max(0, this.at(this.scroller.scrollTop) - BEYOND);
    const last = Math.min(this.items.length - 1, this.at(this.scroller.scrollTop + height) + BEYOND);
    const kept = new Set();
    let before = null;
    for (let at = first; at <= last; at += 1) {
      const item = this.items[at];
      const stamp = this.stamp(item);
      let there = this.shown.get(item.key);
      if (!there || there.stamp !== stamp) {
        const node = this.make(item);
        there?.node.replaceWith(node);
        there = { node, stamp };
        this.shown.set(item.key, there);
      }
      kept.add(item.key);
      const place = before ? before.nextSibling : this.rows.firstChild;
      if (place !== there.node) {
        this.rows.insertBefore(there.node, place);
      }
      before = there.node;
    }
    for (const [key, each] of this.shown) {
      if (!kept.has(key)) {
        each.node.remove();
        this.shown.delete(key);
      }
    }
    this.rows.style.transform = `translateY(${this.items.length ? this.tops[first] : 0}px)`;
    let changed = false;
    for (let at = first; at <= last; at += 1) {
      const { key } = this.items[at];
      const measured = this.shown.get(key).node.offsetHeight;
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

  // Scrolls as little as is needed for an item to be seen; with MIDDLE it is put there.
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

  // The items that can be seen now: [first, last] indices.
  seen() {
    return [this.at(this.scroller.scrollTop), this.at(this.scroller.scrollTop + this.scroller.clientHeight - 1)];
  }
}
