"""Ten seconds of the inspector, filmed in a headless Chromium: nbs/inspector.gif.

Its page asks Python as in a notebook, without a server. Wants Chromium and Playwright.

python scripts/film.py
"""

import base64, io, shutil
from dataclasses import asdict
from pathlib import Path
from PIL import Image
from playwright.sync_api import sync_playwright
from wysiwyg.inspector import Inspector
from wysiwyg.live import page_source, told_of

OUT = Path(__file__).resolve().parent.parent / 'nbs' / 'inspector.gif'
FRAME_MS = 170
COLORS = 220
ARGS = '--no-sandbox --disable-gpu --disable-background-networking'
MODEL = """
function askedOfPython(first) {
  const heard = {}, decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const values = { ...first, pixels: decode(first.pixels) };
  return {
    get: (name) => values[name], set: (name, value) => { values[name] = value; },
    on: (name, f) => { (heard[name] ||= []).push(f); }, off: () => {},
    save_changes: async () => {
      const { told, pixels } = await window.answer(values.asked);
      Object.assign(values, { told, pixels: decode(pixels) });
      heard['change:told'].forEach((f) => f());
    },
  };
}
"""


def state(inspector: Inspector) -> dict:
    return {'told': told_of(inspector), 'pixels': base64.b64encode(inspector.pixels).decode()}


def bridge(inspector: Inspector):
    "Who answers the page."

    def answer(asked: dict) -> dict:
        inspector.ask(**asked)
        return state(inspector)

    return answer


def scene(page, keep):
    "What is done; `keep(n)` films n frames."
    picture = page.locator('.wy canvas').first
    box = picture.bounding_box()

    def click(x: float, y: float):
        picture.click(position={'x': x * box['width'], 'y': y * box['height']})

    def slide(name: str, value: float):
        slider = page.locator(f'input[data-name={name}]')
        slider.evaluate('(e, v) => { e.value = v; e.dispatchEvent(new Event("input")); }', value)

    for step in range(6):
        if step:
            page.keyboard.press(']')
        keep(3)
    for x, y in ((0.45, 0.62), (0.62, 0.3), (0.36, 0.2)):
        click(x, y)
        keep(3)
    page.locator('select[data-name=show]').select_option('missed')
    for k in range(12):
        slide('tau', 0.98 - 0.04 * k)
        keep(1)
    slide('tau', 0.98)
    page.locator('select[data-name=show]').select_option('normal')
    click(0.5, 0.55)
    keep(2)
    middle = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    for k in range(1, 13):
        page.mouse.move(middle[0] + 10 * k, middle[1])
        keep(1)
    page.mouse.up()
    keep(4)


def film() -> list[Image.Image]:
    inspector = Inspector(step=1)
    settings = [asdict(s) for s in inspector.settings]
    known = state(inspector) | {'settings': settings}
    frames = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which('chromium'), args=ARGS.split())
        page = browser.new_page(viewport={'width': 900, 'height': 580})
        page.expose_function('answer', bridge(inspector))
        page.set_content(page_source(inspector, known, 'askedOfPython', MODEL))
        page.wait_for_selector('.wy canvas')
        page.locator('.wy').focus()

        def keep(n: int):
            page.wait_for_timeout(FRAME_MS)
            shot = Image.open(io.BytesIO(page.screenshot())).convert('RGB')
            frames.extend([shot] * n)

        scene(page, keep)
        browser.close()
    return frames


def side_by_side(shots: list[Image.Image]) -> Image.Image:
    width, height = shots[0].size
    strip = Image.new('RGB', (width * len(shots), height))
    for i, shot in enumerate(shots):
        strip.paste(shot, (i * width, 0))
    return strip


def main():
    shots = film()
    colors = side_by_side(shots[::8]).quantize(COLORS)  # one palette, or colours flicker
    frames = [shot.quantize(palette=colors, dither=Image.Dither.NONE) for shot in shots]
    frames[0].save(OUT, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, optimize=True)
    kilobytes = OUT.stat().st_size / 1000
    print(f'{OUT.name}: {len(frames)} frames, {len(frames) * FRAME_MS / 1000:.1f} s, {kilobytes:.0f} KB')


if __name__ == '__main__':
    main()
