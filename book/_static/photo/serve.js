// What the page on photos asks for and gets, in a worker or, where there are none, in the page.
//
// A photo is shown; then classes and maps are asked for, each computed once. Before the network is
// started, maps come from what the library recorded of the open photos (book/_ext/photo_page.py).
"use strict";

function wsssServe(scope, maps, makeNet) {
  const VIEWS = [1, 0.5, 1.5].flatMap((scale) => [[scale, false], [scale, true]]);
  let net = null;
  let photo = null; // {image, record, features, maps, weights}

  async function unzip(text) {
    const packed = await (await fetch(`data:application/octet-stream;base64,${text}`)).blob();
    const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function runScript(bytes) {
    const address = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
    if (scope.importScripts) return scope.importScripts(address);
    return new Promise((done, failed) => {
      const script = scope.document.createElement("script");
      [script.onload, script.onerror, script.src] = [done, failed, address];
      scope.document.head.append(script);
    });
  }

  const answers = {
    async start({ runtime, weights }) {
      const started = performance.now();
      await runScript(await unzip(runtime.files.core));
      await runScript(await unzip(runtime.files.backend));
      const fresh = makeNet(scope.tf);
      await fresh.start(await unzip(runtime.files.wasm), weights.layers, await unzip(weights.data));
      net = fresh;
      return { ms: performance.now() - started };
    },

    // `record` is the recorded grids by class, or null: then the network is asked.
    async photo({ rgba, height, width, side, record }) {
      const image = maps.readPhoto(rgba, height, width, side);
      photo = { image, record, features: [], maps: new Map(), weights: null };
      return { height: image.height, width: image.width, rgb: image.data };
    },

    // Probabilities of all classes; only with a network.
    async classes() {
      const started = performance.now();
      const probs = maps.softmax(net.logits(features(0)));
      return { probs: Float32Array.from(probs), ms: performance.now() - started };
    },

    // Normalised map of class k, at the size of the photo: from one view or all, refined in so many
    // steps of PAR.
    async map({ k, all, steps }) {
      const { image } = photo;
      const started = performance.now();
      const key = `${k} ${all}`;
      if (!photo.maps.has(key)) {
        const grids = found(k, all ? VIEWS.length : 1);
        photo.maps.set(key, maps.normalise(maps.fuse(grids, image.height, image.width)));
      }
      let map = photo.maps.get(key);
      const middle = performance.now();
      if (steps) {
        photo.weights = photo.weights || maps.affinity(image);
        map = maps.refine(map, photo.weights, image.height, image.width, steps);
      }
      return { map, ms: middle - started, refineMs: performance.now() - middle };
    },
  };

  function features(n) {
    const [scale, mirrored] = VIEWS[n];
    photo.features[n] = photo.features[n] || net.features(maps.view(photo.image, scale, mirrored));
    return photo.features[n];
  }

  function found(k, count) {
    const views = VIEWS.slice(0, count);
    if (photo.record) return views.map(([, mirrored], n) => ({ ...photo.record[k][n], mirrored }));
    return views.map(([, mirrored], n) => ({ ...net.grid(features(n), k), mirrored }));
  }

  return (kind, args) => answers[kind](args || {});
}
