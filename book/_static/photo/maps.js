// Arithmetic of the page on photos: what wsss_lab computes with PyTorch, here with typed arrays.
//
// One function holds all of it, without a word about the page, so that a worker can be given its
// text. An image is {data, height, width}: RGB in 0..1, pixel by pixel. A map is a Float32Array of
// height x width values. Every function names its counterpart in the library.
"use strict";

function wsssMaps() {
  const OFFSETS = [];
  for (const distance of [1, 2, 4, 8, 12, 24]) {
    for (const y of [-1, 0, 1]) {
      for (const x of [-1, 0, 1]) {
        if (x || y) OFFSETS.push([y * distance, x * distance]);
      }
    }
  }
  const PAD = 24;

  // Half goes to the even number, as in Python.
  function roundEven(x) {
    const floor = Math.floor(x);
    if (x - floor !== 0.5) return Math.round(x);
    return floor % 2 ? floor + 1 : floor;
  }

  // evaluate.explain.fit_size with multiple=1.
  function fitSize(height, width, side) {
    const scale = side / Math.max(height, width);
    return [height, width].map((s) => Math.max(1, roundEven(s * scale)));
  }

  // Weights of the input pixels for every output pixel, along one axis. With `antialias` the
  // triangle is as wide as an output pixel where the picture shrinks.
  function taps(from, to, antialias) {
    const scale = from / to;
    const support = antialias ? Math.max(1, scale) : 1;
    const found = [];
    for (let i = 0; i < to; i++) {
      const centre = (i + 0.5) * scale;
      if (!antialias) {
        const at = Math.max(0, centre - 0.5);
        const low = Math.min(from - 1, Math.floor(at));
        const high = Math.min(from - 1, low + 1);
        found.push({ start: low, weights: high > low ? [low + 1 - at, at - low] : [1] });
        continue;
      }
      const start = Math.max(0, Math.trunc(centre - support + 0.5));
      const stop = Math.min(from, Math.trunc(centre + support + 0.5));
      const weights = [];
      let sum = 0;
      for (let j = start; j < stop; j++) {
        const weight = Math.max(0, 1 - Math.abs((j + 0.5 - centre) / support));
        weights.push(weight);
        sum += weight;
      }
      found.push({ start, weights: weights.map((w) => w / sum) });
    }
    return found;
  }

  // torch.nn.functional.interpolate(mode="bilinear", align_corners=False) of channels-last data.
  function resize(data, height, width, channels, newHeight, newWidth, antialias) {
    if (height === newHeight && width === newWidth) return Float32Array.from(data);
    const across = new Float32Array(height * newWidth * channels);
    const columns = taps(width, newWidth, antialias);
    for (let y = 0, i = 0; y < height; y++) {
      for (const { start, weights } of columns) {
        const first = (y * width + start) * channels;
        for (let c = 0; c < channels; c++) {
          let sum = 0;
          for (let j = 0; j < weights.length; j++) sum += weights[j] * data[first + j * channels + c];
          across[i++] = sum;
        }
      }
    }
    const line = newWidth * channels;
    const out = new Float32Array(newHeight * line);
    taps(height, newHeight, antialias).forEach(({ start, weights }, y) => {
      for (let i = 0; i < line; i++) {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) sum += weights[j] * across[(start + j) * line + i];
        out[y * line + i] = sum;
      }
    });
    return out;
  }

  // The photo as explain() looks at it. `rgba` is what a canvas gives.
  function readPhoto(rgba, height, width, side) {
    const [h, w] = fitSize(height, width, side);
    const small = resize(rgba, height, width, 4, h, w, true);
    const data = new Float32Array(h * w * 3);
    for (let i = 0, j = 0; j < data.length; i++) if (i % 4 !== 3) data[j++] = small[i] / 255;
    return { data, height: h, width: w };
  }

  // A view for the network, evaluate.inference.scaled and cam.fusion: sides rounded down.
  function view(image, scale, mirrored) {
    const h = Math.floor(image.height * scale);
    const w = Math.floor(image.width * scale);
    const plain = resize(image.data, image.height, image.width, 3, h, w, false);
    return { data: mirrored ? mirror(plain, h, w, 3) : plain, height: h, width: w };
  }

  function mirror(data, height, width, channels) {
    const out = new Float32Array(data.length);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const from = (y * width + x) * channels;
        const to = (y * width + width - 1 - x) * channels;
        for (let c = 0; c < channels; c++) out[to + c] = data[from + c];
      }
    }
    return out;
  }

  // The map of one class from one or several grids, at the size of the image, before
  // normalisation. Grids of one scale follow each other, the mirrored one second: cam.fuse_cams
  // with FUSIONS["multi_scale"] (maximum of both, nothing below 0, sum over the scales).
  function fuse(grids, height, width) {
    const full = ({ values, gh, gw, mirrored }) => {
      const map = resize(values, gh, gw, 1, height, width, false);
      return mirrored ? mirror(map, height, width, 1) : map;
    };
    const out = new Float32Array(height * width);
    for (let g = 0; g < grids.length; g++) {
      if (grids[g].mirrored) continue;
      const plain = full(grids[g]);
      const partner = grids[g + 1] && grids[g + 1].mirrored ? full(grids[g + 1]) : plain;
      for (let i = 0; i < out.length; i++) out[i] += Math.max(plain[i], partner[i], 0);
    }
    return out;
  }

  // cam.normalize_cam, rule "plain": nothing below 0, largest value 1.
  function normalise(map) {
    let top = 0;
    for (const value of map) if (value > top) top = value;
    return map.map((value) => (top > 0 ? Math.max(0, value) / top : 0));
  }

  // refine.local_affinity with PAR_KERNEL: 48 weights per pixel.
  function affinity(image) {
    const { data, height, width } = image;
    const wide = width + 2 * PAD;
    const padded = new Float32Array(wide * (height + 2 * PAD) * 3);
    for (let y = 0, i = 0; y < height + 2 * PAD; y++) {
      const row = Math.min(height - 1, Math.max(0, y - PAD)) * width;
      for (let x = 0; x < wide; x++) {
        const from = (row + Math.min(width - 1, Math.max(0, x - PAD))) * 3;
        for (let c = 0; c < 3; c++) padded[i++] = data[from + c];
      }
    }
    const count = OFFSETS.length;
    const steps = Int32Array.from(OFFSETS, ([y, x]) => (y * wide + x) * 3);
    const position = positions();
    const weights = new Float32Array(height * width * count);
    const squares = new Float64Array(3 * count);
    for (let y = 0, p = 0; y < height; y++) {
      for (let x = 0; x < width; x++, p += count) {
        const here = ((y + PAD) * wide + x + PAD) * 3;
        const [r0, g0, b0] = [padded[here], padded[here + 1], padded[here + 2]];
        // spread of the neighbours from sums of differences to the pixel, in double precision
        let [r1, g1, b1, r2, g2, b2] = [0, 0, 0, 0, 0, 0];
        for (let n = 0, i = 0; n < count; n++, i += 3) {
          const at = here + steps[n];
          const [r, g, b] = [padded[at] - r0, padded[at + 1] - g0, padded[at + 2] - b0];
          r1 += r;
          g1 += g;
          b1 += b;
          r2 += squares[i] = r * r;
          g2 += squares[i + 1] = g * g;
          b2 += squares[i + 2] = b * b;
        }
        const red = factor(r1, r2);
        const green = factor(g1, g2);
        const blue = factor(b1, b2);
        let top = -Infinity;
        for (let n = 0, i = 0; n < count; n++, i += 3) {
          const logit = red * squares[i] + green * squares[i + 1] + blue * squares[i + 2];
          squares[n] = logit; // its place is read already
          if (logit > top) top = logit;
        }
        let sum = 0;
        for (let n = 0; n < count; n++) sum += squares[n] = Math.exp(squares[n] - top);
        for (let n = 0; n < count; n++) weights[p + n] = squares[n] / sum + 0.01 * position[n];
      }
    }
    return weights;
  }

  // Of a squared difference in the logit, from the neighbours' sum and sum of squares.
  function factor(sum, squares) {
    const count = OFFSETS.length;
    const spread = Math.sqrt(Math.max(0, squares - (sum * sum) / count) / (count - 1));
    return -((1 / 0.3 / (spread + 1e-8)) ** 2) / 3;
  }

  // PAR's second term, the same at every pixel.
  function positions() {
    const distance = OFFSETS.map(([y, x]) => Math.hypot(y, x));
    const mean = distance.reduce((a, b) => a + b) / distance.length;
    const square = distance.reduce((a, d) => a + (d - mean) ** 2, 0);
    const spread = Math.sqrt(square / (distance.length - 1)) + 1e-8;
    const power = distance.map((d) => Math.exp(-((d / spread / 0.3) ** 2)));
    const sum = power.reduce((a, b) => a + b);
    return power.map((v) => v / sum);
  }

  // refine.propagate for one map, then divided by the growth of 1.01 per step, as
  // evaluate.map_refinement does.
  function refine(map, weights, height, width, iterations) {
    const wide = width + 2 * PAD;
    const count = OFFSETS.length;
    const steps = Int32Array.from(OFFSETS, ([y, x]) => y * wide + x);
    const padded = new Float32Array(wide * (height + 2 * PAD));
    const out = Float32Array.from(map);
    for (let t = 0; t < iterations; t++) {
      for (let y = 0, i = 0; y < height + 2 * PAD; y++) {
        const row = Math.min(height - 1, Math.max(0, y - PAD)) * width;
        for (let x = 0; x < wide; x++) {
          padded[i++] = out[row + Math.min(width - 1, Math.max(0, x - PAD))];
        }
      }
      for (let y = 0, i = 0, p = 0; y < height; y++) {
        for (let x = 0; x < width; x++, i++) {
          const here = (y + PAD) * wide + x + PAD;
          let sum = 0;
          for (let n = 0; n < count; n++) sum += weights[p++] * padded[here + steps[n]];
          out[i] = sum;
        }
      }
    }
    const growth = 1.01 ** iterations;
    return out.map((value) => Math.min(1, Math.max(0, value / growth)));
  }

  function softmax(logits) {
    const top = Math.max(...logits);
    const power = Array.from(logits, (v) => Math.exp(v - top));
    const sum = power.reduce((a, b) => a + b);
    return power.map((v) => v / sum);
  }

  // Numbers of the largest values, largest first.
  function topk(values, count) {
    return Array.from(values.keys()).sort((a, b) => values[b] - values[a]).slice(0, count);
  }

  return { fitSize, resize, readPhoto, view, fuse, normalise, affinity, refine, softmax, topk };
}
