"""Images of the main area of a page, rendered again without scripts, so that they do not change.

The same elements within different pages give the same image, unless a style sheet of the page affects them.
"""

from collections.abc import Mapping
from typing import Any

from tests.system.browser import Browser

_HEIGHT = 1600
_MAIN = "main.helm-page"
_PLACE = f"""
document.documentElement.dataset.theme = arguments[0];
const main = document.querySelector("{_MAIN}");
Object.assign(main.style, {{ height: "{_HEIGHT}px", overflow: "clip" }});
// The antialiasing of icons depends on their position on the page. Their sizes still count.
for (const icon of main.querySelectorAll("svg")) icon.style.visibility = "hidden";
const {{ x, y, width, height }} = main.getBoundingClientRect();
return {{ x: x + scrollX, y: y + scrollY, width, height, scale: 1 }};
"""
_COMPARE = """
const [one, other, done] = arguments;
const pixels = async (png) => {
  const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
};
(async () => {
  const [before, after] = [await pixels(one), await pixels(other)];
  const sizes = [before, after].map(({ width, height }) => `${width} x ${height}`);
  if (sizes[0] !== sizes[1]) return `sizes: ${sizes}`;
  const [left, right] = [before, after].map(({ data }) => new Uint32Array(data.buffer));
  let count = 0, most = 0, first = "";
  for (let at = 0; at < left.length; at += 1) {
    if (left[at] === right[at]) continue;
    const bytes = [0, 1, 2].map((each) => Math.abs(before.data[4 * at + each] - after.data[4 * at + each]));
    const far = Math.max(...bytes);
    most = Math.max(most, far);
    count += far > 4;
    if (far > 4) first ||= `${at % before.width}, ${Math.floor(at / before.width)}`;
  }
  // Antialiasing of anything else, such as round corners, affects fewer pixels.
  return count > 300 || most > 100 ? `${count} pixels, by ${most} of 255, the first at ${first}` : "";
})().then(done, (error) => done(String(error)));
"""


def main_html(browser: Browser) -> str:
    """Return the HTML of the main area as it is now."""
    return str(browser.run(f"return document.querySelector('{_MAIN}').outerHTML"))


def page_images(browser: Browser, url: str, width: int, mains: Mapping[str, str], theme: str) -> dict[str, str]:
    """Return an image (PNG, base64) of each of MAINS, in place of the main area of the page at URL.

    WIDTH is the window's in pixels. Scrollbars and scripts are disabled meanwhile.
    """

    def protocol(command: str, **given: Any) -> Any:
        return browser.do(lambda: browser.driver.execute_cdp_cmd(command, given))

    protocol("Page.enable")
    # Keeps the style attributes of elements that scripts have positioned.
    protocol("Page.setBypassCSP", enabled=True)
    protocol("Emulation.setScrollbarsHidden", hidden=True)
    protocol("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.size(width, 1000)
        protocol("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
        browser.get(url)
        browser.until_there(_MAIN)
        found = {}
        for name, html in mains.items():
            root = protocol("DOM.getDocument", depth=0)["root"]["nodeId"]
            main = protocol("DOM.querySelector", nodeId=root, selector=_MAIN)["nodeId"]
            protocol("DOM.setOuterHTML", nodeId=main, outerHTML=html)
            place = browser.run(_PLACE, theme)
            shot = protocol("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=place)
            found[name] = str(shot["data"])
    finally:
        protocol("Emulation.setScriptExecutionDisabled", value=False)
        protocol("Emulation.setScrollbarsHidden", hidden=False)
        protocol("Page.setBypassCSP", enabled=False)
        browser.size(1440, 900)
    return found


def differences(browser: Browser, one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the differences between images of the same names, except those by antialiasing."""
    browser.get("about:blank")
    found = []
    for name, png in one.items():
        if png != other[name]:
            said = _compared(browser, png, other[name])
            found += [f"{name}: {said}"] if said else []
    return found


def _compared(browser: Browser, one: str, other: str) -> str:
    return str(browser.do(lambda: browser.driver.execute_async_script(_COMPARE, one, other)))
