// ---- Talking with the server.

const ask = async (method, path, body) => {
  let response;
  try {
    response = await fetch(path, {method, body});
  } catch {
    throw new Error('The program does not answer. Start it again with the same command, and open ' +
      'the address that it prints. What was saved is there again.');
  }
  if (response.ok) return response;
  const {error} = await response.json().catch(() => ({error: `Error ${response.status}.`}));
  throw new Error(error);
};
const fail = error => {
  $('problem').textContent = error.message;
  $('problem').hidden = false;
};
const succeed = () => $('problem').hidden = true;

// Masks that wait until they are saved: a mask, or null to remove the drawn one.
const unsaved = new Map();
let saving = Promise.resolve();
const flush = async () => {
  for (const [number, content] of [...unsaved]) {
    const path = `masks/${number}?since=${revision}`;
    const answer = await (content ? ask('PUT', path, content) : ask('DELETE', path));
    const changes = await answer.json();
    if (unsaved.get(number) === content) unsaved.delete(number);
    if (content) keep(number, changes.frames[number].revision, content);
    take(changes);
  }
};
// Saves what is not saved yet; the promise fails where the server refuses or does not answer.
const saveAll = () => (saving = saving.catch(() => {}).then(flush));
const save = (number, content) => {
  unsaved.set(number, content);
  saveAll().then(succeed, fail);
  describe();
};

const poll = async () => {
  let pause = isRunning() ? 250 : 2000;
  try {
    if (unsaved.size) await saveAll().then(succeed);
    take(await (await ask('GET', `changes?since=${revision}`)).json());
    if (isRunning()) pause = 250;
  } catch (error) {
    fail(error);
  }
  setTimeout(poll, pause);
};

// Takes what the server says has changed.
const take = changes => {
  const before = job;
  revision = Math.max(revision, changes.revision);
  job = changes.job;
  let isChanged = false;
  for (const [number, frame] of Object.entries(changes.frames)) {
    if (frame.revision < frames[number].revision) continue;
    isChanged ||= Number(number) === wanted && frame.revision > frames[number].revision;
    frames[number] = frame;
  }
  if (follows && job?.done && job.number !== wanted) go(job.number, true);
  else if (isChanged && !unsaved.has(wanted)) refresh();
  if (Object.keys(changes.frames).length) {
    listObjects();
    drawStrips();
  }
  if ((follows || before?.is_running) && !isRunning()) {
    follows = false;
    say(jobText());
  }
  describe();
};

// Masks that were loaded, the latest last.
const kept = new Map();
const keep = (number, revision, content) => {
  kept.delete(number);
  kept.set(number, {revision, content});
  while (kept.size > Math.max(4, 1e8 / (height * width))) kept.delete(kept.keys().next().value);
};
const loadMask = async number => {
  const frame = frames[number];
  if (unsaved.get(number)) return unsaved.get(number).slice();
  if (!frame.kind) return new Uint8Array(height * width);
  const known = kept.get(number);
  if (known?.revision === frame.revision) return known.content.slice();
  const answer = await ask('GET', `masks/${number}`);
  const content = new Uint8Array(await answer.arrayBuffer());
  keep(number, frame.revision, content);
  return content.slice();
};
const loadPicture = async number => {
  const picture = new Image();
  picture.src = `frames/${number}`;
  await picture.decode().catch(() => {
    throw new Error(`Frame ${number} could not be loaded.`);
  });
  return picture;
};


// ---- Showing a frame.

let asked = 0;
let isLoading = false;
// Loads the wanted frame and its mask; frames that are passed meanwhile are left out.
const refresh = async () => {
  asked += 1;
  if (isLoading) return;
  isLoading = true;
  for (let done = 0; done !== asked;) {
    done = asked;
    const number = wanted;
    try {
      const [picture, content] = await Promise.all([loadPicture(number), loadMask(number)]);
      if (number === wanted) put(number, picture, content);
    } catch (error) {
      fail(error);
    }
  }
  isLoading = false;
};
const put = (number, picture, content) => {
  const canvas = $('picture');
  if (number !== shown) {
    if (canvas.width !== picture.naturalWidth || canvas.height !== picture.naturalHeight) {
      canvas.width = picture.naturalWidth;
      canvas.height = picture.naturalHeight;
    }
    canvas.getContext('2d').drawImage(picture, 0, 0);
  }
  // What was drawn meanwhile is newer than what was loaded.
  if (number === shown && stroke) return;
  shown = number;
  mask = unsaved.get(number)?.slice() ?? content;
  paint();
  describe();
};
const go = (number, isFollowing = false) => {
  number = clamp(number, 0, last);
  if (!isFollowing) follows = false;
  if (number !== wanted) {
    endStroke();
    polygon = [];
    drawGuide();
  }
  wanted = number;
  describe();
  return refresh();
};

const overlay = $('overlay');
overlay.width = width;
overlay.height = height;
const context = overlay.getContext('2d');
const pixels = context.createImageData(width, height);
const words = new Uint32Array(pixels.data.buffer);
// Of each id the colour inside and at its edge, as words of RGBA.
const inside = new Uint32Array(256);
const edge = new Uint32Array(256);
const setColours = () => {
  const alpha = Math.round(2.55 * $('opacity').value);
  const bytes = new Uint8Array(4);
  const word = new Uint32Array(bytes.buffer);
  for (let id = 1; id < 256; id += 1) {
    bytes.set([...setup.palette[id], alpha]);
    inside[id] = word[0];
    // The palette's first colours are dark.
    const brighter = setup.palette[id].map(value => Math.min(255, 40 + 1.4 * value));
    bytes.set([...brighter, Math.min(255, 3 * alpha)]);
    edge[id] = word[0];
  }
};
// Draws the mask, or only the part of it that changed.
const paint = (left = 0, top = 0, right = width - 1, bottom = height - 1) => {
  left = clamp(Math.floor(left) - 1, 0, width - 1);
  right = clamp(Math.ceil(right) + 1, 0, width - 1);
  top = clamp(Math.floor(top) - 1, 0, height - 1);
  bottom = clamp(Math.ceil(bottom) + 1, 0, height - 1);
  for (let y = top; y <= bottom; y += 1) {
    for (let x = left; x <= right; x += 1) {
      const i = y * width + x;
      const id = mask[i];
      const isEdge = id && (
        (x > 0 && mask[i - 1] !== id) || (x < width - 1 && mask[i + 1] !== id) ||
        (y > 0 && mask[i - width] !== id) || (y < height - 1 && mask[i + width] !== id));
      words[i] = isEdge ? edge[id] : inside[id];
    }
  }
  context.putImageData(pixels, 0, 0, left, top, right - left + 1, bottom - top + 1);
};
