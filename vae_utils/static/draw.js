// The drawing widget: a canvas, and panels that show what the models make of the drawing.
//
// One front end for two places. In a notebook anywidget calls `render`, and the kernel computes. On the pages of `make html`
// tools/website/page.js calls `mount`, and tools/website/engine.js computes. Either way a backend is { ask(request), together }:
// `ask({ strokes, panels, options })` promises an object with one entry for each panel asked for, images being lists of
// base64 (784 bytes each); `together` says whether all panels are to be asked for at once.

const MAGMA = "000004 0b0924 20114b 3b0f70 57157e 721f81 8c2981 a8327d c43c75 de4968 f1605d fa7f5e fe9f6d febf84 fddea0 fcfdbf"
  .split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const PEN = 12 / 112; // the pen's width as a share of the canvas: vae_utils/drawing.py draws with the same
const EMPTY = "The canvas is empty. Draw one large digit with mouse, pen or finger, or take an example.";
const SILENT = "No answer from the kernel. Either it is busy with another cell, or it was restarted: then run the cell " +
  "above again. Your drawing is kept.";
const PATIENCE = 4000; // milliseconds

function make(tag, attributes = {}, ...children) {
  const namespace = ["svg", "rect", "line", "text", "circle"].includes(tag) ? "http://www.w3.org/2000/svg" : null;
  const element = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// --- pictures and charts ---

function colour(grey) {
  const place = (grey / 255) * (MAGMA.length - 1);
  const low = Math.min(Math.floor(place), MAGMA.length - 2);
  return [0, 1, 2].map((c) => MAGMA[low][c] + (place - low) * (MAGMA[low + 1][c] - MAGMA[low][c]));
}
const COLOURS = Array.from({ length: 256 }, (_, grey) => colour(grey));

/** A canvas of 28 by 28 pixels for one image (base64 of 784 bytes), and the caption below it. */
function picture(image, caption, description = caption) {
  const bytes = Uint8Array.from(atob(image), (c) => c.charCodeAt(0));
  const canvas = make("canvas", { width: 28, height: 28, role: "img", "aria-label": description });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(28, 28);
  bytes.forEach((grey, i) => pixels.data.set([...COLOURS[grey], 255], 4 * i));
  context.putImageData(pixels, 0, 0);
  return make("figure", {}, canvas, make("figcaption", {}, caption));
}

const row = (...figures) => make("div", { class: "vae-row" }, ...figures);
const text = (string) => make("p", {}, string);

/** Bars from -3 to 3 with a whisker of one standard deviation either side. */
function bars(means, sigmas) {
  const label = "latent means: " + means.map((v) => v.toFixed(1)).join(", ");
  const chart = make("svg", { viewBox: "0 0 250 110", class: "vae-chart", role: "img", "aria-label": label });
  const y = (value) => 48 - 15 * Math.max(-3.1, Math.min(3.1, value));
  means.forEach((mean, j) => {
    const x = (250 / means.length) * (j + 0.5);
    const attributes = { x: x - 7, y: Math.min(y(mean), y(0)), width: 14, height: Math.abs(y(mean) - y(0)), fill: "#0173b2" };
    chart.append(
      make("rect", attributes),
      make("line", { x1: x, x2: x, y1: y(mean - sigmas[j]), y2: y(mean + sigmas[j]), stroke: "#de8f05", "stroke-width": 2 }),
      make("text", { x, y: 108, "text-anchor": "middle" }, mean.toFixed(1)),
    );
  });
  chart.append(make("line", { x1: 0, x2: 250, y1: y(0), y2: y(0), stroke: "currentColor" }));
  return chart;
}

/** Counts from 0 to `high`, the threshold (dashed) and where the drawing stands (an arrow). */
function histogram({ counts, high, limit, score }) {
  const strange = score > limit;
  const label = `Histogram of the scores of test images; the drawing is ${strange ? "above" : "below"} the threshold.`;
  const chart = make("svg", { viewBox: "0 0 250 110", class: "vae-chart", role: "img", "aria-label": label });
  const x = (value) => 5 + 240 * Math.max(0, Math.min(1, value / high));
  const most = Math.max(...counts);
  counts.forEach((count, i) => {
    const width = 240 / counts.length;
    const height = (75 * count) / most;
    chart.append(make("rect", { x: 5 + i * width, y: 90 - height, width, height, fill: "#0173b2", opacity: 0.7 }));
  });
  const red = "#c44601";
  chart.append(
    make("line", { x1: x(limit), x2: x(limit), y1: 12, y2: 92, stroke: red, "stroke-width": 2, "stroke-dasharray": "5 3" }),
    make("text", { x: x(limit), y: 10, "text-anchor": "middle", fill: red }, "threshold"),
    make("line", { x1: x(score), x2: x(score), y1: 30, y2: 92, stroke: "currentColor", "stroke-width": 3 }),
    make("circle", { cx: x(score), cy: 30, r: 4, fill: "currentColor" }),
    make("text", { x: Math.max(24, Math.min(226, x(score))), y: 106, "text-anchor": "middle" }, "drawing"),
  );
  return chart;
}

// --- panels: a title, and what is shown of the numbers and images that the backend sends ---

const best = (classes) => classes.indexOf(Math.max(...classes));
const percent = (share) => `${Math.round(100 * share)} %`;

const PANELS = {
  code: ["Ten numbers and back (notebook 01)", ({ reconstruction, mu, sigma, recon, kl }) => [
    row(picture(reconstruction[0], "reconstruction"), bars(mu, sigma)),
    text(`Blue: the ten latent means; orange: ± one standard deviation. Reconstruction ${recon.toFixed(1)} nats, ` +
      `KL ${kl.toFixed(1)} nats.`),
  ]],
  bytes: ["A few bytes (notebook 02)", ({ exact, rounded, whole, bits }) => [
    row(picture(exact[0], "from ten floats"), picture(rounded[0], "from whole numbers")),
    text(`Rounded to eighths: ${whole.join(", ")}.`),
    text(`Described by ten Gaussians these cost about ${(bits / 8).toFixed(1)} bytes; 784 pixels are 784 bytes.`),
  ]],
  morph: ["Neighbours, and a walk (notebook 03)", ({ neighbours, labels, path, target }, view) => [
    text("The training images whose codes are nearest:"),
    row(...neighbours.map((image, i) => picture(image, `a ${labels[i]}`, `neighbour ${i + 1}, labelled ${labels[i]}`))),
    text("From your code to that of a test digit, along an arc:"),
    row(...path.map((image, i) => picture(image, i ? "" : "yours", `step ${i + 1} of ${path.length}`)),
      picture(target[0], "test digit")),
    view.chooser,
  ]],
  denoise: ["Noise on it, and off again (notebook 04)", ({ noisy, denoised, before, after }) => [
    row(picture(noisy[0], `noisy, ${before.toFixed(1)} dB`), picture(denoised[0], `denoised, ${after.toFixed(1)} dB`)),
    text("Noise replaced a quarter of the pixels. dB: PSNR against your drawing, more is better."),
  ]],
  strange: ["How strange is it? (notebook 05)", ({ score, limit, below, unit, reconstruction, ...counted }) => [
    row(picture(reconstruction[0], "reconstruction"), histogram({ score, limit, ...counted })),
    make("p", { class: score > limit ? "vae-verdict vae-above" : "vae-verdict" },
      `Score ${score.toFixed(1)} ${unit}: ${score > limit ? "strange, above" : "not strange, below"} the threshold of ` +
      `${limit.toFixed(1)}, which 5 % of validation images exceed. ${percent(below)} of the test images are less strange.`),
  ]],
  complete: ["Half erased, completed four ways (notebook 06)", ({ seen, ways, classes }) => [
    row(picture(seen[0], "what is seen"),
      ...ways.map((image, i) => picture(image, `reads ${best(classes[i])}`, `completion ${i + 1}, read as ${best(classes[i])}`))),
    text("The left half was erased; each completion keeps the right half as it is and draws a code that fits it."),
  ]],
};

// --- the widget ---

/**
 * Puts the widget into `root`. panels: names of PANELS; examples: drawings (lists of strokes); backend: see above.
 * Returns { redraw, load }: compute anew, and show another drawing.
 */
function mount(root, { panels, examples = [], backend }) {
  let strokes = [];
  let drawing = false;
  let running = false;
  let stale = false;
  let example = 0;
  const options = { digit: 7 };

  const canvas = make("canvas", {
    class: "vae-canvas", width: 280, height: 280, tabindex: 0, role: "img",
    "aria-label": "Drawing area. Draw a digit with mouse, pen or finger. Keys: U takes the last stroke back, C clears, " +
      "E takes an example.",
  });
  const button = (label, key, act) => {
    const element = make("button", { type: "button", class: `vae-${label.toLowerCase()}`, "aria-keyshortcuts": key }, label);
    element.addEventListener("click", act);
    return element;
  };
  const undo = () => change(strokes.slice(0, -1));
  const clear = () => change([]);
  const take = () => change(examples[example++ % examples.length].map((stroke) => stroke.map((point) => [...point])));
  const buttons = make("div", { class: "vae-buttons" }, button("Undo", "U", undo), button("Clear", "C", clear));
  if (examples.length) buttons.append(button("Example", "E", take));
  const look = make("div", { class: "vae-look" });
  const reading = make("p", { class: "vae-reading", role: "status" }, EMPTY);
  const problem = make("p", { class: "vae-error", role: "alert" });
  const digits = make("select", { "aria-label": "test digit to walk to" });
  for (let digit = 0; digit < 10; digit++) digits.append(make("option", { value: digit }, String(digit)));
  digits.value = options.digit;
  digits.addEventListener("change", () => { options.digit = Number(digits.value); update(); });
  const view = { chooser: make("label", {}, "Walk to a ", digits) };
  const sections = Object.fromEntries(panels.map((name) => {
    const body = make("div", { class: "vae-body" });
    const section = make("section", { class: "vae-panel", "data-panel": name, "aria-label": PANELS[name][0], hidden: "" },
      make("div", { class: "vae-title" }, PANELS[name][0]), body);
    return [name, { section, body }];
  }));
  root.classList.add("vae-draw");
  // the keys of the canvas are not commands of JupyterLab
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.replaceChildren(
    make("div", { class: "vae-hand" }, canvas, buttons, make("div", { class: "vae-sees" }, look, reading), problem),
    make("div", { class: "vae-panels" }, ...Object.values(sections).map(({ section }) => section)),
  );

  function paint() {
    const context = canvas.getContext("2d");
    const side = canvas.width;
    context.fillStyle = "black";
    context.fillRect(0, 0, side, side);
    Object.assign(context, { strokeStyle: "white", fillStyle: "white", lineWidth: PEN * side, lineCap: "round", lineJoin: "round" });
    for (const stroke of strokes) {
      context.beginPath();
      stroke.forEach(([x, y]) => context.lineTo(x * side, y * side));
      if (stroke.length === 1) context.lineTo(stroke[0][0] * side + 0.01, stroke[0][1] * side);
      context.stroke();
    }
  }

  function change(to) {
    strokes = to;
    update();
  }

  function show(reply) {
    if (reply.look) {
      const { image, classes } = reply.look;
      look.replaceChildren(picture(image[0], "what the model sees", "your drawing, centred and scaled as MNIST is"));
      const digit = best(classes);
      reading.textContent = `The classifier reads a ${digit} (${percent(classes[digit])}).`;
    }
    for (const name of panels) {
      if (!reply[name]) continue;
      sections[name].body.replaceChildren(...PANELS[name][1](reply[name], view));
      sections[name].section.hidden = false;
    }
  }

  /** Asks for everything; when the drawing changes meanwhile, what is left is dropped and it begins again. */
  async function update() {
    paint();
    stale = true;
    if (running) return;
    running = true;
    while (stale) {
      stale = false;
      if (!strokes.length) {
        reading.textContent = EMPTY;
        problem.textContent = "";
        look.replaceChildren();
        for (const { section } of Object.values(sections)) section.hidden = true;
        continue;
      }
      const every = ["look", ...panels];
      for (const asked of backend.together ? [every] : every.map((name) => [name])) {
        const request = { strokes: strokes.map((stroke) => [...stroke]), panels: asked, options: { ...options } };
        try {
          const reply = await backend.ask(request);
          problem.textContent = reply.error || "";
          if (!stale || backend.together) show(reply);
        } catch (error) {
          problem.textContent = error.message;
        }
        if (stale || problem.textContent) break;
      }
    }
    running = false;
    root.dispatchEvent(new CustomEvent("vae-settled"));
  }

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const share = (value, low, length) => Math.max(0, Math.min(1, (value - low) / length));
    return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    drawing = true;
    change([...strokes, [place(event)]]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    const moves = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    strokes[strokes.length - 1].push(...(moves.length ? moves : [event]).map(place));
    update();
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { drawing = false; });
  root.addEventListener("keydown", (event) => {
    if (event.target === digits) return;
    event.stopPropagation();
    const act = { u: undo, c: clear, e: examples.length ? take : null }[event.key.toLowerCase()];
    if (act && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      act();
    }
  });
  paint();
  return { redraw: update, load: change };
}

/** The view of the notebook's widget: the kernel is the backend. */
function render({ model, el }) {
  const waiting = new Map();
  let sent = 0;
  let widget = null;
  const answered = ({ id, reply }) => {
    const resolve = waiting.get(id);
    waiting.delete(id);
    if (resolve) resolve(reply);
    else if (id === sent) widget.redraw(); // the kernel was busy: it answers the last question after we gave up
  };
  const backend = {
    together: true,
    ask: (request) => new Promise((resolve, reject) => {
      const id = ++sent;
      waiting.set(id, resolve);
      const giveUp = () => waiting.delete(id) && reject(new Error(SILENT));
      setTimeout(giveUp, PATIENCE);
      try {
        model.send({ id, ...request });
      } catch {
        giveUp(); // JupyterLab: "Cannot send", after a restart
      }
    }),
  };
  model.on("msg:custom", answered);
  widget = mount(el, { panels: [model.get("panel")], examples: model.get("examples"), backend });
  return () => model.off("msg:custom", answered);
}

export default { render, mount, picture };
