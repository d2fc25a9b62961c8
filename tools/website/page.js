// Brings the live panels of a page to life: `.vae-live` elements, each when it comes into sight. Their data-panel names a panel
// of draw.js, several with spaces between them, or the plane of notebook 03.

(() => {
  const loading = {};

  /** What engine.js makes of assets/NAME.js, which is loaded once. */
  function loaded(name) {
    loading[name] ||= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `assets/${name}.js`;
      script.onload = () => resolve(vaeEngine.unpack(globalThis.vaePacks[name]));
      script.onerror = () => reject(new Error(`assets/${name}.js is missing: run make html again.`));
      document.head.append(script);
    });
    return loading[name];
  }

  async function drawing(place, names) {
    const pack = await loaded("model");
    const widget = vaeDraw.mount(place, { panels: names, examples: pack.meta.examples, backend: vaeEngine.backend(pack) });
    if (place.dataset.panel === "denoise") { // notebook 04's cell computes more
      const said = "Live on this page, encoder and decoder alone take the noise off, decode(mu), without the noise model.";
      place.after(Object.assign(document.createElement("p"), { className: "vae-note", textContent: said }));
    }
    place.dataset.ready = "yes";
    return widget;
  }

  async function plane(place) {
    const { meta, networks } = await loaded("plane");
    const map = Object.assign(document.createElement("img"), {
      src: meta.map, alt: "Map of the plane: what the decoder makes of a grid of codes, from -3 to 3 in both directions.",
    });
    const mark = Object.assign(document.createElement("div"), { className: "vae-mark" });
    const field = Object.assign(document.createElement("div"), { className: "vae-map" });
    field.append(map, mark);
    const shown = document.createElement("div");
    const sliders = ["z₁", "z₂"].map((name) => {
      const input = Object.assign(document.createElement("input"), { type: "range", min: -3, max: 3, step: 0.01, value: 0 });
      const label = document.createElement("label");
      label.append(name, " ", input);
      input.addEventListener("input", show);
      return { input, label };
    });
    function show() {
      const z = sliders.map(({ input }) => Number(input.value));
      const image = vaeEngine.sigmoid(vaeEngine.run(networks.decoder, Float32Array.from(z)));
      const bytes = btoa(String.fromCharCode(...Uint8Array.from(image, (v) => Math.round(255 * v))));
      const caption = `z = (${z.map((v) => v.toFixed(2)).join(", ")})`;
      shown.replaceChildren(vaeDraw.picture(bytes, caption, `the decoded digit at ${caption}`));
      mark.style.left = `${(100 * (z[0] + 3.25)) / 6.5}%`;
      mark.style.top = `${(100 * (3.25 - z[1])) / 6.5}%`;
    }
    field.addEventListener("pointerdown", (event) => {
      const box = field.getBoundingClientRect();
      sliders[0].input.value = 6.5 * ((event.clientX - box.left) / box.width) - 3.25;
      sliders[1].input.value = 3.25 - 6.5 * ((event.clientY - box.top) / box.height);
      show();
    });
    const controls = document.createElement("div");
    controls.append(...sliders.map(({ label }) => label), shown);
    place.classList.add("vae-draw", "vae-explorer");
    place.replaceChildren(field, controls);
    show();
    place.dataset.ready = "yes";
  }

  const watch = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      const names = target.dataset.panel.split(" ");
      (names[0] === "plane" ? plane(target) : drawing(target, names)).catch((error) => {
        const line = Object.assign(document.createElement("p"), { className: "vae-error", textContent: error.message });
        line.setAttribute("role", "alert");
        target.append(line);
      });
    }
  }, { rootMargin: "300px" });
  // what scrolls sideways must do so by the keyboard too
  for (const box of document.querySelectorAll(".jp-RenderedHTMLCommon, .jp-RenderedText, .highlight pre, .jp-OutputArea-output")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
  document.querySelectorAll(".vae-live").forEach((place) => watch.observe(place));
})();
