// The models of the series in plain JavaScript: what vae_utils/drawing.py and vae_utils/panels.py compute, without a kernel.
//
// `vaeEngine(pack)` makes a backend for static/draw.js out of a pack that tools/website.py wrote: weights (float16, computed with
// as float32), codes and images. tests/browser compares it with PyTorch. No module: a page opened from a disk may not load any.

(() => {
  // --- layers; a network is a list of { kind, weight, bias, relu, ... } ---
  //
  // Images lie pixel by pixel, all channels of a pixel together, and every weight row by row of its inputs: so the innermost loop
  // is always "add a multiple of a row to a row", and what a ReLU has silenced costs nothing.

  const live = new Int32Array(8192);

  /** Adds x[from + i] times row i of the weight (its rows begin at `row`) to `length` places of out, for all i < count. */
  function addRows(out, at, length, x, from, count, weight, row) {
    let n = 0;
    for (let i = 0; i < count; i++) if (x[from + i] !== 0) live[n++] = i;
    let k = 0;
    for (; k + 3 < n; k += 4) { // four rows at once: half the time
      const [f0, f1, f2, f3] = [x[from + live[k]], x[from + live[k + 1]], x[from + live[k + 2]], x[from + live[k + 3]]];
      const r0 = row + live[k] * length, r1 = row + live[k + 1] * length;
      const r2 = row + live[k + 2] * length, r3 = row + live[k + 3] * length;
      for (let o = 0; o < length; o++) {
        out[at + o] += f0 * weight[r0 + o] + f1 * weight[r1 + o] + f2 * weight[r2 + o] + f3 * weight[r3 + o];
      }
    }
    for (; k < n; k++) {
      const factor = x[from + live[k]];
      const r = row + live[k] * length;
      for (let o = 0; o < length; o++) out[at + o] += factor * weight[r + o];
    }
  }

  function linear(x, { weight, bias }) {
    const out = Float64Array.from(bias);
    addRows(out, 0, out.length, x, 0, x.length, weight, 0);
    return out;
  }

  function repeated(bias, count) {
    const out = new Float64Array(count * bias.length);
    for (let i = 0; i < count; i++) out.set(bias, i * bias.length);
    return out;
  }

  /** For all places where a kernel set down on the `coarse` grid meets the `fine` one: visit(coarse pixel, fine pixel, tap). */
  function meet(coarse, fine, { kernel, stride, padding }, visit) {
    for (let r = 0; r < coarse; r++) {
      for (let c = 0; c < coarse; c++) {
        for (let u = 0; u < kernel; u++) {
          const y = r * stride + u - padding;
          if (y < 0 || y >= fine) continue;
          for (let v = 0; v < kernel; v++) {
            const z = c * stride + v - padding;
            if (z >= 0 && z < fine) visit(r * coarse + c, y * fine + z, u * kernel + v);
          }
        }
      }
    }
  }

  /** x: (size, size, inputs); weight: (kernel, kernel, inputs, outputs). From fine to coarse, transposed from coarse to fine. */
  function convolved(x, layer, transposed) {
    const { weight, bias, size, side } = layer;
    const inputs = x.length / (size * size);
    const outputs = bias.length;
    const out = repeated(bias, side * side);
    const add = (from, to, tap) =>
      addRows(out, to * outputs, outputs, x, from * inputs, inputs, weight, tap * inputs * outputs);
    if (transposed) meet(size, side, layer, add);
    else meet(side, size, layer, (to, from, tap) => add(from, to, tap));
    return out;
  }

  /** The largest of each 2 by 2; an odd last row and column are left out. */
  function pool(x, { size }) {
    const side = size >> 1;
    const channels = x.length / (size * size);
    const out = new Float64Array(channels * side * side);
    for (let r = 0; r < side; r++) {
      for (let c = 0; c < side; c++) {
        for (let k = 0; k < channels; k++) {
          const at = (2 * r * size + 2 * c) * channels + k;
          const below = at + size * channels;
          out[(r * side + c) * channels + k] = Math.max(x[at], x[at + channels], x[below], x[below + channels]);
        }
      }
    }
    return out;
  }

  const KINDS = {
    linear,
    pool,
    conv: (x, layer) => convolved(x, layer, false),
    convTransposed: (x, layer) => convolved(x, layer, true),
  };

  function run(network, x) {
    for (const layer of network) {
      x = KINDS[layer.kind](x, layer);
      if (layer.relu) for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] = 0;
    }
    return x;
  }

  const sigmoid = (logits) => logits.map((v) => 1 / (1 + Math.exp(-v)));

  function softmax(logits) {
    const most = Math.max(...logits);
    const powers = Array.from(logits, (v) => Math.exp(v - most));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((v) => v / sum);
  }

  // --- a drawing becomes an image: drawing.ink and data.into_mnist_frame ---

  const SIDE = 112, PEN = 12, BOX = 20, MIDDLE = 14;

  function ink(strokes) {
    if (!strokes.length || strokes.some((stroke) => !stroke.length)) throw new Error("The drawing is empty.");
    for (const point of strokes.flat()) {
      if (point.length !== 2 || !point.every((v) => Number.isFinite(v) && v >= 0 && v <= 1)) {
        throw new Error(`A stroke passes through ${point}; expected coordinates in [0, 1].`);
      }
    }
    const image = new Float64Array(SIDE * SIDE);
    for (const stroke of strokes) {
      const points = stroke.map((point) => point.map((v) => SIDE * v - 0.5));
      for (let i = 0; i < Math.max(1, points.length - 1); i++) {
        const [a, b] = [points[i], points[Math.min(i + 1, points.length - 1)]];
        const step = [b[0] - a[0], b[1] - a[1]];
        const square = Math.max(step[0] ** 2 + step[1] ** 2, 1e-12);
        const reach = PEN / 2 + 1;
        const low = [0, 1].map((k) => Math.floor(Math.max(Math.min(a[k], b[k]) - reach, 0)));
        const high = [0, 1].map((k) => Math.ceil(Math.min(Math.max(a[k], b[k]) + reach, SIDE - 1)));
        for (let y = low[1]; y <= high[1]; y++) {
          for (let x = low[0]; x <= high[0]; x++) {
            const along = Math.max(0, Math.min(1, ((x - a[0]) * step[0] + (y - a[1]) * step[1]) / square));
            const off = [x - a[0] - along * step[0], y - a[1] - along * step[1]];
            const distance = Math.sqrt(off[0] * off[0] + off[1] * off[1]);
            const value = Math.max(0, Math.min(1, PEN / 2 + 0.5 - distance));
            if (value > image[y * SIDE + x]) image[y * SIDE + x] = value;
          }
        }
      }
    }
    return image;
  }

  function roundEven(value) { // as Python rounds
    const down = Math.floor(value);
    if (value - down !== 0.5) return Math.round(value);
    return down % 2 ? down + 1 : down;
  }

  /** A line of numbers smoothed (as scikit-image smooths before it shrinks) and interpolated to `length`. */
  function resized(line, length) {
    const factor = line.length / length;
    const sigma = Math.max(0, (factor - 1) / 2);
    const inside = (i) => Math.max(0, Math.min(line.length - 1, i));
    let smooth = line;
    if (sigma > 0) {
      const radius = Math.floor(4 * sigma + 0.5);
      const kernel = Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-0.5 * ((i - radius) / sigma) ** 2));
      const sum = kernel.reduce((a, b) => a + b, 0);
      smooth = line.map((_, i) => kernel.reduce((total, k, j) => total + k * line[inside(i + j - radius)], 0) / sum);
    }
    return Array.from({ length }, (_, o) => {
      const place = inside((o + 0.5) * factor - 0.5);
      const before = Math.min(Math.floor(place), line.length - 1);
      const after = inside(before + 1);
      return smooth[before] + (place - before) * (smooth[after] - smooth[before]);
    });
  }

  const transposed = (rows) => rows[0].map((_, c) => rows.map((row) => row[c]));

  function frame(image) {
    const rows = Array.from({ length: SIDE }, (_, r) => Array.from(image.subarray(r * SIDE, (r + 1) * SIDE)));
    const extent = (lines) => {
      const inked = lines.map((line) => line.some((v) => v >= 0.5 / 255));
      return [inked.indexOf(true), inked.lastIndexOf(true) + 1];
    };
    const [top, bottom] = extent(rows);
    const [left, right] = extent(transposed(rows));
    let box = rows.slice(top, bottom).map((row) => row.slice(left, right));
    const most = Math.max(bottom - top, right - left);
    const shape = [bottom - top, right - left].map((length) => Math.max(1, roundEven((BOX * length) / most)));
    box = transposed(box.map((row) => resized(row, shape[1]))).map((column) => resized(column, shape[0])); // columns first
    const centre = (lines) => {
      const sums = lines.map((line) => line.reduce((a, b) => a + b, 0));
      return sums.reduce((a, v, i) => a + i * v, 0) / sums.reduce((a, b) => a + b, 0);
    };
    const start = [centre(transposed(box)), centre(box)].map((c, axis) =>
      Math.min(Math.max(roundEven(MIDDLE - c), 0), 28 - shape[axis]));
    const out = new Float32Array(784);
    box.forEach((column, c) => column.forEach((v, r) => { out[(start[0] + r) * 28 + start[1] + c] = Math.max(0, Math.min(1, v)); }));
    return out;
  }

  // --- the panels: panels.Panels ---

  const range = (length, of) => Array.from({ length }, (_, i) => of(i));
  const sum = (length, of) => { let total = 0; for (let i = 0; i < length; i++) total += of(i); return total; };

  function packed(image) {
    return btoa(String.fromCharCode(...Uint8Array.from(image, (v) => roundEven(255 * v))));
  }

  function largest(values, count) {
    return range(values.length, (i) => i).sort((a, b) => values[b] - values[a]).slice(0, count);
  }

  function backend({ meta, arrays, networks }) {
    const L = meta.latent_dim;
    const rowOf = (array, i, length) => array.subarray(i * length, (i + 1) * length);
    const imageOf = (bytes, i) => Float32Array.from(rowOf(bytes, i, 784), (v) => v / 255);
    const encode = (x) => {
      const both = run(networks.encoder, x);
      return [both.subarray(0, L), both.subarray(L)];
    };
    const decode = (z) => sigmoid(run(networks.decoder, Float32Array.from(z)));
    const crossEntropy = (p, x) => // logarithms stop at -100, as PyTorch's do
      sum(784, (i) => -x[i] * Math.max(Math.log(p[i]), -100) - (1 - x[i]) * Math.max(Math.log1p(-p[i]), -100));
    const classes = (x) => softmax(run(networks.classifier, x));

    const panels = {
      look: (x) => ({ image: [packed(x)], classes: classes(x) }),

      code(x) {
        const [mu, logvar] = encode(x);
        const reconstruction = decode(mu);
        const kl = -0.5 * sum(L, (j) => 1 + logvar[j] - mu[j] ** 2 - Math.exp(logvar[j]));
        const sigma = Array.from(logvar, (v) => Math.exp(0.5 * v));
        return { reconstruction: [packed(reconstruction)], mu: [...mu], sigma, recon: crossEntropy(reconstruction, x), kl };
      },

      bytes(x) {
        const [mu] = encode(x);
        const whole = Array.from(mu, (v) => roundEven(v / meta.step));
        const rounded = whole.map((v) => v * meta.step);
        const bits = sum(L, (j) => {
          const far = (rounded[j] - arrays.mean[j]) / arrays.deviation[j];
          return Math.log2((arrays.deviation[j] * Math.sqrt(2 * Math.PI)) / meta.step) + far ** 2 / (2 * Math.LN2);
        });
        return { exact: [packed(decode(mu))], rounded: [packed(decode(rounded))], whole, bits };
      },

      morph(x, { digit = 7 } = {}) {
        const [mu] = encode(x);
        const far = range(arrays.labels.length, (i) => -Math.sqrt(sum(L, (j) => (arrays.codes[i * L + j] - mu[j]) ** 2)));
        const near = largest(far, 5);
        const path = arc(mu, rowOf(arrays.targetCodes, digit, L), 7).map(decode).map(packed);
        return {
          neighbours: near.map((i) => packed(imageOf(arrays.known, i))), labels: near.map((i) => arrays.labels[i]),
          distances: near.map((i) => -far[i]), path, target: [packed(imageOf(arrays.targets, digit))],
        };
      },

      denoise(x) {
        const noisy = x.map((v, i) => (arrays.untouched[i] ? v : arrays.noise[i]));
        const denoised = decode(encode(noisy)[0]);
        const psnr = (y) => -10 * Math.log10(sum(784, (i) => (x[i] - y[i]) ** 2) / 784);
        return { noisy: [packed(noisy)], denoised: [packed(denoised)], before: psnr(noisy), after: psnr(denoised) };
      },

      strange(x) {
        const reconstruction = decode(encode(x)[0]);
        const score = crossEntropy(reconstruction, x);
        const below = arrays.scores.filter((v) => v < score).length / arrays.scores.length;
        const { limit, high, counts, unit } = meta;
        return { score, limit, below, counts, high, unit, reconstruction: [packed(reconstruction)] };
      },

      complete(x) {
        const observed = arrays.observed;
        const seen = x.map((v, i) => v * observed[i]);
        const ways = drawsGiven(seen, observed);
        return { seen: [packed(seen)], ways: ways.map(packed), classes: ways.map(classes) };
      },
    };

    function arc(start, end, steps) {
      const lengths = [start, end].map((code) => Math.hypot(...code));
      const cosine = sum(L, (j) => start[j] * end[j]) / (lengths[0] * lengths[1]);
      const angle = Math.acos(Math.max(-1 + 1e-6, Math.min(1 - 1e-6, cosine)));
      return range(steps, (i) => {
        const t = i / (steps - 1);
        const [a, b] = [Math.sin((1 - t) * angle) / lengths[0], Math.sin(t * angle) / lengths[1]];
        const scale = (lengths[0] + t * (lengths[1] - lengths[0])) / Math.sin(angle);
        return range(L, (j) => scale * (a * start[j] + b * end[j]));
      });
    }

    function drawsGiven(seen, observed) {
      const places = range(784, (i) => i).filter((i) => observed[i]);
      const surest = (p) => Math.max(1 / 512, Math.min(511 / 512, p));
      // most seen pixels are black: begin with those terms, and mend them where there is ink
      const black = Float64Array.from({ length: 256 }, (_, v) => Math.log1p(-surest(v / 255)));
      const gain = Float64Array.from({ length: 256 }, (_, v) => Math.log(surest(v / 255)) - black[v]);
      const inked = places.filter((i) => seen[i] > 0);
      const fits = range(arrays.labels.length, (k) => {
        let fit = 0;
        for (const i of places) fit += black[arrays.decoded[784 * k + i]];
        for (const i of inked) fit += seen[i] * gain[arrays.decoded[784 * k + i]];
        return fit;
      });
      const around = largest(fits, meta.starts).map((k) => {
        const filled = imageOf(arrays.decoded, k).map((v, i) => (observed[i] ? seen[i] : v));
        return encode(filled);
      });
      const draws = range(meta.starts * meta.draws, (n) => {
        const [mu, logvar] = around[Math.floor(n / meta.draws)];
        const z = range(L, (j) => mu[j] + Math.exp(0.5 * logvar[j]) * arrays.eps[n * L + j]);
        const image = decode(z);
        const fit = sum(places.length, (m) => {
          const p = surest(image[places[m]]);
          return seen[places[m]] * Math.log(p) + (1 - seen[places[m]]) * Math.log1p(-p);
        });
        const logs = around.map(([m, s]) => -0.5 * sum(L, (j) => (z[j] - m[j]) ** 2 / Math.exp(s[j]) + s[j]));
        const most = Math.max(...logs);
        const proposal = most + Math.log(logs.reduce((total, v) => total + Math.exp(v - most), 0));
        return { image, weight: fit - 0.5 * sum(L, (j) => z[j] ** 2) - proposal + arrays.gumbel[n] };
      });
      const kept = largest(draws.map((draw) => draw.weight), meta.shown);
      return kept.map((n) => draws[n].image.map((v, i) => (observed[i] ? seen[i] : v)));
    }

    return {
      together: false,
      decode,
      encode,
      classes,
      panels,
      async ask({ strokes, panels: names, options }) {
        await new Promise((resolve) => setTimeout(resolve)); // let the page paint and listen
        const x = frame(ink(strokes));
        return Object.fromEntries(names.map((name) => [name, panels[name](x, options)]));
      },
    };
  }

  // --- packs: what tools/website.py wrote ---

  function fromHalf(bits) { // a float16 as a number
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const value = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
    return bits & 0x8000 ? -value : value;
  }

  /** { meta, arrays, networks } from a pack { header, data }: base64 of deflated bytes. */
  async function unpack({ header, data }) {
    const text = atob(data);
    const squeezed = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) squeezed[i] = text.charCodeAt(i);
    const stream = new Blob([squeezed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    const halves = Float32Array.from({ length: 65536 }, (_, bits) => fromHalf(bits));
    const arrays = {};
    for (const [name, { kind, at, count }] of Object.entries(header.arrays)) {
      const of = { float16: Uint16Array, float32: Float32Array, uint8: Uint8Array }[kind];
      const raw = new of(buffer, at, count);
      arrays[name] = raw;
      if (kind !== "float16") continue;
      arrays[name] = new Float32Array(count);
      for (let i = 0; i < count; i++) arrays[name][i] = halves[raw[i]];
    }
    const networks = Object.fromEntries(Object.entries(header.networks).map(([name, layers]) => [
      name, layers.map((layer) => ({ ...layer, weight: arrays[layer.weight], bias: arrays[layer.bias] })),
    ]));
    return { meta: header.meta, arrays, networks };
  }

  globalThis.vaeEngine = { backend, unpack, run, sigmoid, frame, ink };
})();
