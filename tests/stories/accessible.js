// What a person who sees little, or uses a keyboard or a screen reader, would complain about on this page.
// Answers a list of sentences; an empty one is good news. Numbers in brackets are clauses of WCAG 2.2.
() => {
  const found = [];
  const say = (fact, complaint) => { if (!fact) found.push(complaint); };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (element) => element.checkVisibility({ checkVisibilityCSS: true });
  const called = (element) => (element.getAttribute("aria-label") || element.textContent || "").trim();

  // -- What the page is (2.4.2, 3.1.1, 1.3.1) --------------------------------------------------------------
  say(document.documentElement.lang, "the page has no language");
  say(document.title.trim(), "the page has no title");
  say(document.doctype !== null, "the page has no doctype");
  say(all("h1").length === 1, `${all("h1").length} headings of the first rank`);
  say(all("main").length === 1, `${all("main").length} main parts`);
  say(document.querySelector("main h1"), "the heading is not in the main part");
  say(all("body > header").length === 1, "no banner, or several");
  say(all("nav").every((nav) => called(nav) && nav.hasAttribute("aria-label")), "a navigation without a name");
  say(all("nav").every((nav) => nav.querySelector("a")), "a navigation that leads nowhere");
  let last = 0;
  for (const heading of all("h1, h2, h3, h4, h5, h6")) {
    const rank = Number(heading.tagName[1]);
    say(rank <= last + 1, `heading "${called(heading)}" leaves out a rank`);
    say(called(heading), "an empty heading");
    last = rank;
  }
  // Text outside every landmark is missed by those who go from landmark to landmark.
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    const holder = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() && shown(holder)) texts.push(holder);
  }
  for (const holder of texts) {
    say(holder.closest("header, main, footer, nav, aside, [role]"), `"${called(holder)}" is in no landmark`);
  }

  // -- What can be done on it (4.1.2, 2.4.3, 2.5.8, 3.3.2) ---------------------------------------------------
  for (const element of all("a, button")) say(called(element), `a ${element.tagName} without a name`);
  for (const element of all("a")) say(element.getAttribute("href"), `"${called(element)}" leads nowhere`);
  for (const element of all("input:not([type=hidden]), select, textarea")) {
    say(element.labels.length || element.hasAttribute("aria-label"), `field ${element.name} has no label`);
  }
  for (const image of all("img")) say(image.hasAttribute("alt"), "an image without a text");
  for (const image of all("svg")) {
    say(image.closest("[aria-hidden=true]") || image.getAttribute("role") === "img", "a drawing is read aloud");
  }
  say(all("[tabindex]").every((element) => element.tabIndex <= 0), "the order of the Tab key is bent");
  const ids = all("[id]").map((element) => element.id);
  say(new Set(ids).size === ids.length, "an id is used twice");
  // Large enough to hit, or alone: no other target within the circle of 24 pixels around its middle.
  const targets = all("a, button, input:not([type=hidden])").filter(shown).map((element) => {
    const box = (element.labels?.[0] ?? element).getBoundingClientRect();
    return { element, box, x: box.x + box.width / 2, y: box.y + box.height / 2 };
  });
  const small = ({ box }) => Math.min(box.width, box.height) < 24;
  const gap = (x, y, box) =>
    Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));
  for (const one of targets.filter(small)) {
    if (getComputedStyle(one.element).display === "inline" && one.element.closest("p, li, td, dd")) continue;
    const alone = targets.every(
      (other) =>
        other === one ||
        (small(other) ? Math.hypot(other.x - one.x, other.y - one.y) >= 24 : gap(one.x, one.y, other.box) >= 12),
    );
    say(alone, `"${called(one.element)}" is too small to hit, and close to another`);
  }

  // -- Whether it can be read (1.4.3, 1.4.4, 1.4.10) ---------------------------------------------------------
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    const sheet = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
    return layers.reduceRight((under, top) => over(top, under), sheet);
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const contrast = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  for (const element of new Set(texts)) {
    const under = ground(element), style = getComputedStyle(element);
    const ratio = contrast(over(rgba(style.color), under), under);
    say(ratio >= 4.5, `"${called(element).slice(0, 40)}" has a contrast of ${ratio.toFixed(2)} only`);
    say(parseFloat(style.fontSize) >= 12, `"${called(element).slice(0, 40)}" is set in ${style.fontSize}`);
  }
  const viewport = document.querySelector("meta[name=viewport]")?.content ?? "";
  say(viewport.includes("width=device-width"), "a phone shows the page as if it were a desk");
  say(!/user-scalable *= *no|maximum-scale/.test(viewport), "the page cannot be enlarged");
  const { scrollWidth, clientWidth } = document.documentElement;
  say(scrollWidth <= clientWidth, `the page is ${scrollWidth} wide in a window of ${clientWidth}`);
  return found;
}
