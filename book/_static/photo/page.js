// The page on photos: what a reader sees, presses and hears. The work is done in serve.js.
"use strict";

(() => {
  const COUNT = 5; // classes that are listed
  const STEPS = 10; // of PAR, side by side, where the slider says none
  const LONGEST = 4096; // px; the browser itself scales down what is larger
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const byId = (name) => document.getElementById(`photo-${name}`);
  const recorded = wsssPhoto.recorded;
  const heat = Uint8Array.from(atob(recorded.heat), (c) => c.charCodeAt(0));
  const short = (name) => name.split(",")[0];
  const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
  const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;
  let ask = null; // a question to serve.js, in a worker or in the page
  let network = "none"; // then "ready"; or "missing" where the browser cannot
  let photo = null; // what is shown
  let views = []; // its maps: {map, title}
  let shows = 0; // photos asked for; `settled` is the one on the page
  let settled = 0;
  let running = false; // maps are being computed, and `dirty`: for settings that changed since
  let dirty = false;
  let opening = ""; // words to say with the next maps

  // --- who computes --------------------------------------------------------------------------

  const inPage = () => wsssServe(window, wsssMaps(), wsssNet);

  function inWorker() {
    const code = `${wsssMaps}\n${wsssNet}\n${wsssServe}
      const serve = wsssServe(self, wsssMaps(), wsssNet);
      onmessage = async ({ data: { id, kind, args } }) => {
        try { postMessage({ id, answer: await serve(kind, args) }); }
        catch (error) { postMessage({ id, error: String((error && error.message) || error) }); }
      };`;
    const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    const open = new Map();
    let count = 0;
    worker.onmessage = ({ data: { id, answer, error } }) => {
      const { done, failed } = open.get(id);
      open.delete(id);
      if (error === undefined) done(answer);
      else failed(new Error(error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      ask = inPage(); // refused before it answered anything: the page takes over
      for (const { kind, args, done, failed } of open.values()) ask(kind, args).then(done, failed);
      open.clear();
    };
    return (kind, args) =>
      new Promise((done, failed) => {
        open.set(++count, { kind, args, done, failed });
        worker.postMessage({ id: count, kind, args });
      });
  }

  // WebAssembly with SIMD (this module uses one such instruction), and a way to unzip.
  function able() {
    const bytes = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0];
    const simd = Uint8Array.from([...bytes, 65, 0, 253, 15, 253, 98, 11]);
    return (
      typeof WebAssembly === "object" &&
      typeof DecompressionStream === "function" &&
      WebAssembly.validate(simd)
    );
  }

  const load = (file) =>
    new Promise((done, failed) => {
      const script = document.createElement("script");
      script.onload = done;
      script.onerror = () => failed(new Error(`${file} is not beside this page`));
      script.src = here + file;
      document.head.append(script);
    });

  let starting = null;
  function start() {
    if (network === "missing") return Promise.resolve(false);
    starting = starting || startOnce();
    return starting;
  }

  async function startOnce() {
    byId("start").disabled = true;
    byId("state").textContent = "Loading the network …";
    try {
      await load("runtime.js");
      await load("weights.js");
      const { ms } = await ask("start", { runtime: wsssPhoto.runtime, weights: wsssPhoto.weights });
      delete wsssPhoto.runtime;
      delete wsssPhoto.weights;
      network = "ready";
      byId("start").hidden = true;
      byId("any").disabled = false;
      byId("state").textContent =
        `The network is ready (${seconds(ms)}). Everything below is computed here, on your device.`;
      return true;
    } catch (error) {
      starting = null;
      byId("start").disabled = false;
      byId("state").textContent = `The network could not be started: ${error.message}.`;
      return false;
    }
  }

  // --- photos --------------------------------------------------------------------------------

  function pixels(picture, width, height) {
    const scale = Math.min(1, LONGEST / Math.max(width, height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff"; // under what is transparent
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    return { rgba: data, width: canvas.width, height: canvas.height };
  }

  async function showOpen(shown) {
    const image = new Image();
    image.src = shown.address;
    await image.decode();
    await show({ ...shown, ...pixels(image, image.naturalWidth, image.naturalHeight) });
  }

  async function showFile(file) {
    if (!(await start())) return;
    try {
      const image = await createImageBitmap(file);
      await show({ alt: `Your photo ${file.name}`, ...pixels(image, image.width, image.height) });
    } catch {
      byId("state").textContent = `This browser cannot read ${file.name} as a picture.`;
    }
  }

  function recordOf(name) {
    const found = {};
    for (const { k, grids } of recorded.photos[name].classes) {
      found[k] = grids.map(({ size: [gh, gw], step, data }) => {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        return { values: Float32Array.from(new Int16Array(bytes.buffer), (v) => v * step), gh, gw };
      });
    }
    return found;
  }

  async function show(next) {
    const turn = ++shows;
    const record = next.name && network !== "ready" ? recordOf(next.name) : null;
    const { rgba, height, width } = next;
    const size = await ask("photo", { rgba, height, width, side: recorded.side, record });
    let found, ms;
    if (record) {
      found = recorded.photos[next.name].classes.map(({ k, prob }) => ({ k, prob }));
    } else {
      const answer = await ask("classes");
      ms = answer.ms;
      next.probs = answer.probs;
      const order = Array.from(answer.probs.keys()).sort((a, b) => answer.probs[b] - answer.probs[a]);
      found = order.slice(0, COUNT).map((k) => ({ k, prob: answer.probs[k] }));
    }
    if (turn !== shows) return; // another photo was asked for
    [settled, views] = [turn, []];
    photo = { ...next, h: size.height, w: size.width, rgb: size.rgb, classMs: ms };
    for (const button of byId("strip").children) {
      button.setAttribute("aria-pressed", String(button.dataset.name === photo.name));
    }
    credit();
    list(found);
    await update(`${photo.alt}. Likeliest: ${short(recorded.names[found[0].k])}, ` +
      `${percent(found[0].prob)}. `);
  }

  function credit() {
    const line = byId("credit");
    line.textContent = "";
    if (!photo.name) {
      line.textContent = "Your photo stays on this page: nothing is sent anywhere.";
      return;
    }
    line.append(`Photograph: ${photo.author}, ${photo.licence}, `);
    if (/^https?:/.test(photo.source)) {
      const link = document.createElement("a");
      [link.href, link.textContent] = [photo.source.split(" ")[0], "source"];
      line.append(link);
    } else line.append(photo.source);
    line.append(`; ${photo.changes}.`);
  }

  // --- classes -------------------------------------------------------------------------------

  function list(found) {
    const box = byId("classes");
    box.textContent = "";
    found.forEach((entry, n) => box.append(row(entry, n === 0)));
    byId("any").value = "";
  }

  function row({ k, prob }, checked) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "photo-class", value: k, checked });
    const name = document.createElement("span");
    name.className = "photo-name";
    name.textContent = short(recorded.names[k]);
    name.title = recorded.names[k];
    const bar = document.createElement("span");
    bar.className = "photo-bar";
    bar.style.setProperty("--share", prob);
    const number = document.createElement("span");
    number.className = "photo-number";
    number.textContent = percent(prob, 1);
    label.append(input, name, bar, number);
    return label;
  }

  // Any of the 1,000 classes, also one that is surely not there.
  function choose(name) {
    const wanted = name.trim().toLowerCase();
    const same = (full) => [full, short(full)].some((n) => n.toLowerCase() === wanted);
    const k = recorded.names.findIndex(same);
    if (k < 0 || !photo || !photo.probs) return;
    const box = byId("classes");
    let input = box.querySelector(`input[value="${k}"]`);
    if (!input) {
      while (box.children.length > COUNT) box.lastChild.remove();
      box.append(row({ k, prob: photo.probs[k] }, false));
      input = box.lastChild.firstChild;
    }
    input.checked = true;
    update();
  }

  // --- maps ----------------------------------------------------------------------------------

  function settings() {
    return {
      k: Number(byId("classes").querySelector("input:checked").value),
      all: byId("all").checked,
      steps: Number(byId("steps").value),
      threshold: Number(byId("threshold").value) / 100,
      cut: byId("cut").checked,
      compare: byId("compare").checked,
    };
  }

  async function update(words = "") {
    [dirty, opening] = [true, words || opening];
    if (running) return;
    running = true;
    byId("lab").setAttribute("aria-busy", "true");
    while (dirty && photo && settled === shows) {
      dirty = false;
      if (await compute(() => dirty || settled !== shows)) {
        draw(opening);
        opening = "";
      }
    }
    byId("lab").removeAttribute("aria-busy");
    running = false;
  }

  // The maps that the settings ask for; false if they are out of date before they are there.
  async function compute(stale) {
    const { k, all, steps, compare } = settings();
    const par = (n) => `PAR, ${n} step${n === 1 ? "" : "s"}`;
    const wanted = compare
      ? [
          ["CAM", false, 0],
          ["Multi-scale and mirrored", true, 0],
          [`The same, ${par(steps || STEPS)}`, true, steps || STEPS],
        ]
      : [[(all ? "Multi-scale and mirrored" : "CAM") + (steps ? `, ${par(steps)}` : ""), all, steps]];
    const times = photo.classMs ? [`classes ${seconds(photo.classMs)}`] : [];
    const found = [];
    try {
      for (const [title, everyView, n] of wanted) {
        const answer = await ask("map", { k, all: everyView, steps: n });
        if (stale()) return false;
        found.push({ title, map: answer.map });
        if (n) times.push(`PAR ${seconds(answer.refineMs)}`);
        else times.push(`${everyView ? "map from six views" : "map"} ${seconds(answer.ms)}`);
      }
    } catch (error) {
      if (!stale()) byId("state").textContent = `No map could be computed: ${error.message}.`;
      return false;
    }
    views = found;
    const origin = photo.probs ? "Computed here" : "Maps recorded by the library, drawn here";
    byId("times").textContent = `${origin}. Time: ${times.join(", ")}.`;
    return true;
  }

  function draw(before = "") {
    if (!views.length) return;
    const { k, threshold, cut } = settings();
    const name = short(recorded.names[k]);
    const box = byId("views");
    box.dataset.count = views.length;
    while (box.children.length > views.length) box.lastChild.remove();
    while (box.children.length < views.length) box.append(frame());
    const words = views.map(({ map, title }, n) => {
      const [canvas, caption] = box.children[n].children;
      const { share, place } = measure(map, threshold);
      const text = share ? `${percent(share)} of the photo, around the ${place}` : "nothing";
      paint(canvas, map, threshold, cut);
      canvas.setAttribute("aria-label", `${title} of ${name}: above the threshold, ${text}. ${photo.alt}.`);
      caption.textContent = `${title}: ${share ? percent(share) : "nothing"} above ${threshold.toFixed(2)}`;
      return `${title}: ${text}`;
    });
    say(`${before}${name} above ${threshold.toFixed(2)}. ${words.join(". ")}.`);
  }

  function frame() {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    figure.append(canvas, document.createElement("figcaption"));
    return figure;
  }

  // Share of the pixels above the threshold, and where they are, in words.
  function measure(map, threshold) {
    let count = 0;
    let down = 0;
    let right = 0;
    map.forEach((value, i) => {
      if (value <= threshold) return;
      count += 1;
      down += Math.floor(i / photo.w);
      right += i % photo.w;
    });
    const third = (sum, size) => Math.min(2, Math.floor((3 * sum) / (count * size)));
    const line = ["upper ", "", "lower "][third(down, photo.h)];
    const column = ["left", "middle", "right"][third(right, photo.w)];
    return { share: count / map.length, place: line + column };
  }

  // The overlay of wsss_lab.viz.overlay (60 % colour over the photo in grey) with an outline, or the
  // photo itself where the map is above the threshold.
  function paint(canvas, map, threshold, cut) {
    const { h, w, rgb } = photo;
    const small = new ImageData(w, h);
    for (let i = 0; i < map.length; i++) {
      const [r, g, b] = [rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]].map((v) => 255 * v);
      const grey = (r + g + b) / 3;
      const colour = 3 * Math.round(255 * map[i]);
      const inside = map[i] > threshold;
      const of = (v, c) => {
        if (cut) return inside ? v : 0.35 * grey + 24;
        return 0.4 * grey + 0.6 * heat[colour + c];
      };
      small.data.set([of(r, 0), of(g, 1), of(b, 2), 255], 4 * i);
    }
    const source = document.createElement("canvas");
    [source.width, source.height] = [w, h];
    source.getContext("2d").putImageData(small, 0, 0);
    const scale = 2;
    [canvas.width, canvas.height] = [scale * w, scale * h];
    const context = canvas.getContext("2d");
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    if (cut) return;
    const line = new Path2D();
    const inside = (y, x) => map[y * w + x] > threshold;
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        if (x + 1 < w && inside(y, x) !== inside(y, x + 1)) {
          line.moveTo((x + 1) * scale, y * scale);
          line.lineTo((x + 1) * scale, (y + 1) * scale);
        }
        if (y + 1 < h && inside(y, x) !== inside(y + 1, x)) {
          line.moveTo(x * scale, (y + 1) * scale);
          line.lineTo((x + 1) * scale, (y + 1) * scale);
        }
      }
    }
    context.lineCap = "square";
    [context.lineWidth, context.strokeStyle] = [4, "#000"];
    context.stroke(line);
    [context.lineWidth, context.strokeStyle] = [2, "#fff"];
    context.stroke(line);
  }

  // --- words for who hears the page; one sentence, after a pause, while a slider moves --------

  let pause = 0;
  function say(words) {
    clearTimeout(pause);
    pause = setTimeout(() => (byId("said").textContent = words), 300);
  }

  // --- begin ---------------------------------------------------------------------------------

  function sliders() {
    const threshold = byId("threshold");
    const steps = byId("steps");
    byId("threshold-value").textContent = (threshold.value / 100).toFixed(2);
    byId("steps-value").textContent = steps.value;
    threshold.setAttribute("aria-valuetext", (threshold.value / 100).toFixed(2));
    steps.setAttribute("aria-valuetext", `${steps.value} steps`);
  }

  function begin() {
    try {
      ask = inWorker();
    } catch {
      ask = inPage();
    }
    byId("lab").hidden = false;
    for (const shown of wsssPhoto.photos) {
      const button = document.createElement("button");
      const image = document.createElement("img");
      Object.assign(button, { type: "button" });
      button.dataset.name = shown.name;
      Object.assign(image, { src: shown.address, alt: shown.alt });
      button.append(image);
      button.addEventListener("click", () => showOpen(shown));
      byId("strip").append(button);
    }
    for (const name of recorded.names) {
      const option = document.createElement("option");
      option.value = name;
      byId("names").append(option);
    }
    if (!able()) {
      network = "missing";
      byId("start").hidden = true;
      byId("file").disabled = true;
      byId("drop").hidden = true;
      byId("state").textContent =
        "This browser has no WebAssembly with SIMD, or it is switched off: the network cannot run " +
        "here. The photos below still work, with the class maps that the library recorded of them; " +
        "threshold, multi-scale and PAR are computed on this page. For your own photo, use " +
        "“python -m wsss_lab explain”.";
    }
    byId("start").addEventListener("click", async () => {
      if ((await start()) && photo) await show(photo);
    });
    byId("file").addEventListener("change", ({ target }) => {
      if (target.files.length) showFile(target.files[0]);
      target.value = "";
    });
    byId("any").addEventListener("change", ({ target }) => choose(target.value));
    byId("classes").addEventListener("change", () => update());
    for (const name of ["all", "compare"]) byId(name).addEventListener("change", () => update());
    byId("cut").addEventListener("change", () => draw());
    byId("steps").addEventListener("input", () => (sliders(), update()));
    byId("threshold").addEventListener("input", () => (sliders(), draw()));
    const lab = byId("lab");
    lab.addEventListener("dragover", (event) => {
      event.preventDefault();
      lab.classList.add("photo-over");
    });
    lab.addEventListener("dragleave", () => lab.classList.remove("photo-over"));
    lab.addEventListener("drop", (event) => {
      event.preventDefault();
      lab.classList.remove("photo-over");
      if (event.dataTransfer.files.length) showFile(event.dataTransfer.files[0]);
    });
    sliders();
    showOpen(wsssPhoto.photos[0]);
  }

  begin();
})();
