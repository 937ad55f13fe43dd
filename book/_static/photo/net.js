// EfficientNet-Lite0 of the page on photos, run by TensorFlow.js and its WebAssembly backend.
//
// One function, so that a worker can be given its text. `tf` is TensorFlow.js.
"use strict";

function wsssNet(tf) {
  let layers = []; // facts, weight and bias tensors
  let classifier = null; // {weights: Float32Array (out, in), bias, out, in}
  // `facts` and `data` are those of weights.js, the data as bytes.
  async function start(wasm, facts, data) {
    tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
    tf.env().set("WASM_HAS_SIMD_SUPPORT", true);
    tf.env().platform.fetch = async () => new Response(wasm);
    tf.wasm.setWasmPaths("", true);
    await tf.setBackend("wasm");
    read(facts, data);
  }

  // Undo book/_ext/photo_weights.py.
  function read(facts, data) {
    let at = 0;
    const numbers = facts.map((f) => {
      const inputs = f.kind === "depthwise" ? 1 : f.in;
      const count = f.out * inputs * (f.kernel || 1) ** 2;
      const found = unpack(data.subarray(at), count, f.bits);
      at += count + Math.ceil((count * (f.bits - 8)) / 8);
      return found;
    });
    const floats = new Float32Array(data.slice(at).buffer);
    const outs = facts.reduce((sum, f) => sum + f.out, 0);
    let row = 0;
    layers = [];
    facts.forEach((f, i) => {
      const steps = floats.subarray(row, row + f.out);
      const bias = floats.slice(outs + row, outs + row + f.out);
      row += f.out;
      const rest = numbers[i].length / f.out;
      const rows = new Float32Array(numbers[i].length);
      for (let o = 0, j = 0; o < f.out; o++) {
        for (let n = 0; n < rest; n++, j++) rows[j] = numbers[i][j] * steps[o];
      }
      if (f.kind === "linear") {
        classifier = { weights: rows, bias, out: f.out, in: f.in };
        return;
      }
      // PyTorch: (out, in, kernel, kernel); TensorFlow: (kernel, kernel, in, out), or (.., out, 1)
      const cells = f.kernel ** 2;
      const inputs = rest / cells;
      const turned = new Float32Array(rows.length);
      for (let o = 0, j = 0; o < f.out; o++) {
        for (let n = 0; n < inputs; n++) {
          for (let k = 0; k < cells; k++) turned[(k * inputs + n) * f.out + o] = rows[j++];
        }
      }
      const shape = f.kind === "depthwise" ? [f.out, 1] : [inputs, f.out];
      layers.push({
        ...f,
        filter: tf.tensor4d(turned, [f.kernel, f.kernel, ...shape]),
        bias: tf.tensor1d(bias),
      });
    });
  }

  function unpack(data, count, bits) {
    const low = bits - 8;
    const mask = (1 << low) - 1;
    const found = new Int16Array(count);
    for (let i = 0; i < count; i++) {
      const bit = i * low;
      const byte = count + (bit >> 3);
      const lower = ((data[byte] | ((data[byte + 1] || 0) << 8)) >> (bit & 7)) & mask;
      found[i] = ((data[i] << 24) >> 24) * (1 << low) + lower;
    }
    return found;
  }

  // The last map of one view, (gh, gw, 1280).
  function features(image) {
    const found = tf.tidy(() => {
      const scaled = image.data.map((v) => (v - 0.5) / 0.5);
      let x = tf.tensor4d(scaled, [1, image.height, image.width, 3]);
      let block = "";
      let input = x;
      for (const layer of layers) {
        if (layer.block !== block) [block, input] = [layer.block, x];
        const run = layer.kind === "depthwise" ? tf.fused.depthwiseConv2d : tf.fused.conv2d;
        x = run({
          x,
          filter: layer.filter,
          strides: layer.stride,
          dilations: layer.dilation,
          pad: "same",
          bias: layer.bias,
          activation: layer.relu6 ? "relu6" : "linear",
        });
        if (layer.add) x = tf.add(x, input);
      }
      return x;
    });
    const [, gh, gw] = found.shape;
    const values = found.dataSync();
    found.dispose();
    return { values, gh, gw };
  }

  // Logits of a photo from its last map: the classifier of the mean.
  function logits({ values, gh, gw }) {
    const width = classifier.in;
    const mean = new Float64Array(width);
    for (let i = 0; i < values.length; i++) mean[i % width] += values[i] / (gh * gw);
    return Float32Array.from(classifier.bias, (b, k) => {
      let sum = b;
      for (let d = 0; d < width; d++) sum += mean[d] * classifier.weights[k * width + d];
      return sum;
    });
  }

  // cam.class_activation_map of one class.
  function grid({ values, gh, gw }, k) {
    const width = classifier.in;
    const weights = classifier.weights.subarray(k * width, (k + 1) * width);
    const out = new Float32Array(gh * gw);
    for (let cell = 0; cell < out.length; cell++) {
      let sum = 0;
      for (let d = 0; d < width; d++) sum += weights[d] * values[cell * width + d];
      out[cell] = sum;
    }
    return { values: out, gh, gw };
  }

  return { start, features, logits, grid };
}
