'use strict';

const $ = id => document.getElementById(id);
const setup = JSON.parse($('work').dataset.setup);
const [height, width] = setup.size;
const last = setup.numFrames - 1;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// ---- Masks: an id for each pixel, row by row, in a Uint8Array.

// A mask as pairs of an id and how often it follows, for the steps that can be undone.
const pack = mask => {
  const runs = [];
  for (let start = 0, end = 0; start < mask.length; start = end) {
    while (end < mask.length && mask[end] === mask[start]) end += 1;
    runs.push(mask[start], end - start);
  }
  return runs;
};
const unpack = runs => {
  const mask = new Uint8Array(height * width);
  for (let i = 0, at = 0; i < runs.length; at += runs[i + 1], i += 2) {
    mask.fill(runs[i], at, at + runs[i + 1]);
  }
  return mask;
};
const idsIn = mask => {
  const seen = new Uint8Array(256);
  for (const id of mask) seen[id] = 1;
  return [...seen.keys()].filter(id => id && seen[id]);
};

// Calls `visit` with each pixel whose centre is within `radius` of the line from a to b, and the
// pixel of b itself. Points are in pixels; the centre of the first pixel is (0.5, 0.5).
const visitLine = (a, b, radius, visit) => {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const length = dx * dx + dy * dy;
  const left = Math.max(Math.floor(Math.min(a.x, b.x) - radius), 0);
  const right = Math.min(Math.ceil(Math.max(a.x, b.x) + radius), width - 1);
  const top = Math.max(Math.floor(Math.min(a.y, b.y) - radius), 0);
  const bottom = Math.min(Math.ceil(Math.max(a.y, b.y) + radius), height - 1);
  const [ownX, ownY] = [Math.floor(b.x), Math.floor(b.y)];
  for (let y = top; y <= bottom; y += 1) {
    for (let x = left; x <= right; x += 1) {
      const [px, py] = [x + 0.5 - a.x, y + 0.5 - a.y];
      const along = length ? clamp((px * dx + py * dy) / length, 0, 1) : 0;
      const near = Math.hypot(px - along * dx, py - along * dy) <= radius;
      if (near || (x === ownX && y === ownY)) visit(y * width + x);
    }
  }
};

// Calls `visit` with each pixel whose centre is inside a polygon, by the even-odd rule.
const visitPolygon = (points, visit) => {
  for (let y = 0; y < height; y += 1) {
    const crossings = [];
    points.forEach((a, i) => {
      const b = points[(i + 1) % points.length];
      if ((a.y <= y + 0.5) !== (b.y <= y + 0.5)) {
        crossings.push(a.x + (y + 0.5 - a.y) / (b.y - a.y) * (b.x - a.x));
      }
    });
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const end = Math.min(Math.ceil(crossings[i + 1] - 0.5), width);
      for (let x = Math.max(Math.ceil(crossings[i] - 0.5), 0); x < end; x += 1) visit(y * width + x);
    }
  }
};

// ---- The state of the page.

// Of each frame what the server says; `revision` grows when its mask changes.
const frames = Array.from(
  {length: setup.numFrames},
  () => ({kind: '', revision: 0, ids: [], confidence: {}, is_outdated: false}));
let revision = 0;
let job = null;
let wanted = 0;              // The frame that the scrubber is at,
let shown = -1;              // the frame that is shown, which follows when it is loaded,
let mask = new Uint8Array(height * width);  // and its mask.
let object = 1;
let added = [1];             // Objects that may not be drawn yet.
let stroke = null;           // What the brush is drawing: the runs before, and the last point.
let polygon = [];
let pen = {x: width / 2, y: height / 2};
let zoom = 1;
let timer = null;
let follows = false;         // Whether the frame shown is the latest that the propagation labelled.

const tool = () => document.querySelector('[name=tool]:checked').value;
const erases = () => document.querySelector('[name=action]:checked').value === 'erase';
const choose = (name, value) => {
  document.querySelector(`[name=${name}][value=${value}]`).checked = true;
  drawGuide();
};
const colour = id => `rgb(${setup.palette[id].join(' ')})`;
const say = text => $('said').textContent = text;
const frameName = number => `frame ${number} of ${last}`;
const isRunning = () => job !== null && job.is_running;

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
const save = (number, content) => {
  unsaved.set(number, content);
  saving = saving.then(flush).then(succeed, fail);
  describe();
};

const poll = async () => {
  let pause = isRunning() ? 250 : 2000;
  try {
    if (unsaved.size) await (saving = saving.then(flush).then(succeed));
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
    // Brighter: the palette's first colours are dark.
    bytes.set([...setup.palette[id].map(value => Math.min(255, 40 + 1.4 * value)), Math.min(255, 3 * alpha)]);
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

// ---- Drawing.

const history = [];
const future = [];
// Runs of the drawn mask; null where none was drawn.
const before = () => frames[shown].kind === 'drawn' ? pack(mask) : null;
// Makes `mask` the drawn one of the frame shown.
const commit = previous => {
  history.push({number: shown, before: previous, after: pack(mask)});
  while (history.reduce((sum, step) => sum + step.after.length, 0) > 4e6) history.shift();
  future.length = 0;
  setDrawn(shown, mask.slice());
};
const setDrawn = (number, content) => {
  if (content) {
    frames[number] = {
      ...frames[number], kind: 'drawn', ids: idsIn(content), confidence: {}, is_outdated: false};
    listObjects();
    drawStrips();
  }
  save(number, content);
};
const move = (from, to, takes) => {
  const step = from.pop();
  if (!step) return;
  to.push(step);
  setDrawn(step.number, step[takes] && unpack(step[takes]));
  go(step.number);
  say(`${takes === 'before' ? 'Undone' : 'Done again'} on frame ${step.number}`);
};
const undo = () => { endStroke(); move(history, future, 'before'); };
const redo = () => { endStroke(); move(future, history, 'after'); };

// Makes a function that gives a pixel to the object, or takes it away; it returns whether it did.
const changer = isErasing => {
  const protects = $('protect').checked;
  return i => {
    if (isErasing ? mask[i] !== object : mask[i] === object || (protects && mask[i])) return;
    mask[i] = isErasing ? 0 : object;
    stroke.isChanged = true;
  };
};
const beginStroke = (point, isErasing) => {
  if (shown !== wanted || stroke) return;
  pause();
  follows = false;
  stroke = {runs: before(), point, isChanged: false};
  stroke.change = changer(isErasing);
  extendStroke(point);
};
const extendStroke = point => {
  const radius = $('size').value / 2;
  visitLine(stroke.point, point, radius, stroke.change);
  const [xs, ys] = [[stroke.point.x, point.x], [stroke.point.y, point.y]];
  paint(
    Math.min(...xs) - radius, Math.min(...ys) - radius,
    Math.max(...xs) + radius, Math.max(...ys) + radius);
  stroke.point = point;
};
const endStroke = () => {
  if (!stroke) return;
  const {isChanged, runs} = stroke;
  stroke = null;
  if (isChanged) commit(runs);
  drawGuide();
};
const closePolygon = () => {
  if (polygon.length > 2 && shown === wanted) {
    stroke = {runs: before(), isChanged: false};
    visitPolygon(polygon, changer(erases()));
    paint();
  }
  polygon = [];
  endStroke();
  drawGuide();
};
const addPoint = point => {
  if (shown !== wanted) return;
  pause();
  const scale = width / overlay.clientWidth;
  const isNear = (a, b) => Math.hypot(a.x - b.x, a.y - b.y) < 7 * scale;
  if (polygon.length > 2 && isNear(polygon[0], point)) return closePolygon();
  if (!polygon.length || !isNear(polygon.at(-1), point)) polygon.push(point);
  drawGuide();
};

// The outline of the brush, and the polygon so far.
const drawGuide = () => {
  const isBrush = tool() === 'brush';
  const radius = isBrush ? $('size').value / 2 : 2 * width / Math.max(overlay.clientWidth, 1);
  $('ring').classList.toggle('erases', erases());
  for (const circle of $('ring').children) {
    circle.setAttribute('cx', pen.x);
    circle.setAttribute('cy', pen.y);
    circle.setAttribute('r', Math.max(radius, 0.5));
  }
  const points = polygon.length ? [...polygon, pen] : [];
  for (const part of $('shape').children) {
    if (part.tagName === 'polyline') part.setAttribute('points', points.map(p => `${p.x},${p.y}`).join(' '));
    else {
      part.setAttribute('cx', points[0]?.x ?? 0);
      part.setAttribute('cy', points[0]?.y ?? 0);
      part.setAttribute('r', points.length ? 6 * width / overlay.clientWidth : 0);
    }
  }
};

const pointOf = event => {
  const box = overlay.getBoundingClientRect();
  return {
    x: (event.clientX - box.left) / box.width * width,
    y: (event.clientY - box.top) / box.height * height};
};
overlay.addEventListener('pointerdown', event => {
  event.preventDefault();  // The arrow keys go on to move in time.
  document.activeElement?.blur();
  if (event.button !== 0 && event.button !== 2) return;
  pen = pointOf(event);
  if (tool() === 'polygon') {
    if (event.button === 0) addPoint(pen);
  } else {
    overlay.setPointerCapture(event.pointerId);
    beginStroke(pen, erases() !== (event.button === 2));
  }
});
overlay.addEventListener('pointermove', event => {
  pen = pointOf(event);
  if (stroke && event.buttons) (event.getCoalescedEvents?.() ?? [event]).forEach(e => extendStroke(pointOf(e)));
  drawGuide();
});
for (const name of ['pointerup', 'pointercancel']) overlay.addEventListener(name, endStroke);
overlay.addEventListener('dblclick', () => { if (polygon.length) closePolygon(); });
overlay.addEventListener('contextmenu', event => event.preventDefault());
overlay.addEventListener('blur', endStroke);

// Keys while the drawing area has the focus; returns whether the key was one of them.
const drawByKey = event => {
  const [dx, dy] = {
    ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key] ?? [0, 0];
  if (dx || dy) {
    const step = event.shiftKey ? 1 : 10;
    pen = {x: clamp(pen.x + step * dx, 0.5, width - 0.5), y: clamp(pen.y + step * dy, 0.5, height - 0.5)};
    if (stroke) extendStroke(pen);
    const id = mask[Math.floor(pen.y) * width + Math.floor(pen.x)];
    say(`x ${Math.floor(pen.x)}, y ${Math.floor(pen.y)}, ${id ? `object ${id}` : 'background'}`);
  } else if (event.key === ' ' && tool() === 'polygon') {
    addPoint({...pen});
    say(polygon.length ? `Point ${polygon.length} of the polygon` : 'Polygon closed');
  } else if (event.key === ' ') {
    if (stroke) endStroke();
    else beginStroke(pen, erases());
    say(stroke ? 'Brush down' : 'Brush up');
  } else {
    return false;
  }
  drawGuide();
  return true;
};

// ---- Objects.

const listObjects = () => {
  const ids = [...new Set([...added, ...frames.flatMap(frame => frame.ids)])].sort((a, b) => a - b);
  const list = $('objects');
  if (ids.join() === list.dataset.ids) return;
  list.dataset.ids = ids.join();
  list.replaceChildren(...ids.map(id => {
    const label = document.createElement('label');
    label.innerHTML = '<input type="radio" name="object"><i class="swatch"></i><span></span>';
    label.style.setProperty('--colour', colour(id));
    label.querySelector('span').textContent = `Object ${id}`;
    const input = label.querySelector('input');
    input.value = id;
    input.checked = id === object;
    input.addEventListener('change', () => select(id));
    return label;
  }));
};
const select = id => {
  endStroke();
  object = id;
  const input = document.querySelector(`[name=object][value="${id}"]`);
  if (!input) return;
  input.checked = true;
  input.scrollIntoView({block: 'nearest'});
  drawGuide();
};
const objectIds = () => $('objects').dataset.ids.split(',').map(Number);
const addObject = () => {
  const id = objectIds().at(-1) + 1;
  if (id > setup.maxObject) return;
  added.push(id);
  listObjects();
  select(id);
  say(`Object ${id}`);
};

// ---- Time: the strips under the scrubber, and going through it.

const confidences = id => frames.map(frame => frame.confidence[id]);
const drawStrips = () => {
  const ids = objectIds().filter(id => frames.some(frame => id in frame.confidence));
  const rows = ['masks', ...ids];
  const strips = $('strips');
  if (strips.dataset.rows !== rows.join()) {
    strips.dataset.rows = rows.join();
    strips.replaceChildren(...rows.map(row => {
      const strip = document.createElement('div');
      strip.className = 'strip';
      strip.innerHTML = '<span></span><canvas role="img"></canvas>';
      if (row !== 'masks') strip.firstChild.innerHTML = '<i class="swatch"></i>';
      strip.firstChild.append(row === 'masks' ? 'Masks' : `Object ${row}`);
      strip.style.setProperty('--colour', row === 'masks' ? '' : colour(row));
      const canvas = strip.querySelector('canvas');
      const seek = event => go(Math.round(
        (event.offsetX - 8) / Math.max(canvas.clientWidth - 16, 1) * last));
      canvas.addEventListener('pointerdown', event => { pause(); seek(event); });
      canvas.addEventListener('pointermove', event => { if (event.buttons) seek(event); });
      return strip;
    }));
  }
  const style = getComputedStyle(document.documentElement);
  const variable = name => style.getPropertyValue(name);
  rows.forEach((row, index) => {
    const canvas = strips.children[index].querySelector('canvas');
    const ratio = window.devicePixelRatio;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const brush = canvas.getContext('2d');
    brush.scale(ratio, ratio);
    const tall = canvas.clientHeight;
    const cell = (canvas.clientWidth - 16) / Math.max(last, 1);
    const wide = Math.max(cell - (cell > 4 ? 1 : 0), 1);
    const bar = (number, from, colour) => {
      brush.fillStyle = colour;
      brush.fillRect(8 + number * cell - wide / 2, tall - from, wide, from);
    };
    if (row === 'masks') {
      const diamond = Math.min(7, Math.max(cell, 4));
      frames.forEach((frame, number) => {
        if (frame.kind === 'found') {
          brush.fillStyle = variable(frame.is_outdated ? '--notice-rule' : '--muted');
          brush.fillRect(8 + number * cell - wide / 2, tall / 2 - 2, wide, 4);
        }
      });
      brush.fillStyle = variable('--accent');
      frames.forEach((frame, number) => {
        if (frame.kind !== 'drawn') return;
        const x = 8 + number * cell;
        brush.beginPath();
        brush.moveTo(x - diamond, tall / 2);
        brush.lineTo(x, tall / 2 - diamond);
        brush.lineTo(x + diamond, tall / 2);
        brush.lineTo(x, tall / 2 + diamond);
        brush.fill();
      });
      const count = kind => frames.filter(frame => frame.kind === kind).length;
      canvas.setAttribute('aria-label',
        `${count('drawn')} masks drawn, ${count('found')} found, of ${last + 1} frames`);
    } else {
      const filled = getComputedStyle(strips.children[index].querySelector('.swatch')).backgroundColor;
      let [sum, number, least, at] = [0, 0, Infinity, 0];
      confidences(row).forEach((value, frame) => {
        if (value === undefined) return;
        bar(frame, Math.max(value * tall, 1), filled);
        [sum, number] = [sum + value, number + 1];
        if (value < least) [least, at] = [value, frame];
      });
      canvas.setAttribute('aria-label', `Confidence in object ${row}: mean ` +
        `${(sum / number).toFixed(2)}, least ${least.toFixed(2)} at frame ${at}`);
    }
  });
};

const pause = () => {
  clearTimeout(timer);
  timer = null;
  $('play').textContent = '\u25b6\ufe0e';
  $('play').setAttribute('aria-label', 'Play');
};
const play = () => {
  if (timer) return pause();
  if (wanted === last) go(0);
  const tick = async () => {
    const started = performance.now();
    if (wanted >= last) return pause();
    await go(wanted + 1);
    if (timer) timer = setTimeout(tick, Math.max(1000 / setup.rate - (performance.now() - started), 1));
  };
  timer = setTimeout(tick, 0);
  $('play').textContent = '\u275a\u275a';
  $('play').setAttribute('aria-label', 'Pause');
};
const jump = step => { pause(); go(wanted + step); };
const toDrawn = step => {
  for (let n = wanted + step; n >= 0 && n <= last; n += step) {
    if (frames[n].kind === 'drawn') return jump(n - wanted);
  }
  say('No drawn mask there');
};
// Goes through the found frames from the least certain on, each at least five from those before.
let doubted = [];
const toDoubt = () => {
  const least = frame => Math.min(...Object.values(frame.confidence));
  const order = [...frames.keys()]
    .filter(n => Object.keys(frames[n].confidence).length)
    .sort((a, b) => least(frames[a]) - least(frames[b]));
  const next = () => order.find(n => doubted.every(other => Math.abs(other - n) >= 5));
  let number = next();
  if (number === undefined) {
    doubted = [];
    number = next();
  }
  if (number === undefined) return;
  doubted.push(number);
  jump(number - wanted);
  say(`Frame ${number}, confidence ${least(frames[number]).toFixed(2)}`);
};

// ---- Words.

const jobText = () => {
  if (!job) return '';
  if (job.error) return job.error;
  if (job.is_running && !job.done) return 'Starting ...';
  if (job.is_running) return `${job.done} of ${job.total} frames`;
  if (job.is_cancelled) return `Cancelled after ${job.done} frames; these are kept.`;
  return job.total === 1 ? 'One frame is done.' : `${job.total} frames are done.`;
};
const set = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
const describe = () => {
  const frame = frames[wanted];
  const value = Object.entries(frame.confidence)
    .map(([id, c]) => `object ${id}: ${c.toFixed(2)}`).join(', ');
  const drawn = [...frames.keys()].filter(n => frames[n].kind === 'drawn');
  const previous = drawn.findLast(n => n < wanted);
  const ended = frame.kind === 'drawn' && previous !== undefined
    ? frames[previous].ids.filter(id => !frame.ids.includes(id)) : [];
  const kind = frame.kind === 'drawn'
    ? ['Drawn: kept as it is.', ...ended.map(id => `Object ${id} is not in it, and ends here.`)].join(' ')
    : frame.kind === '' ? 'No mask yet. Draw, or propagate.'
    : (frame.is_outdated ? 'Found before a correction: propagate again. ' : 'Found. ') +
      (value ? `Confidence ${value}.` : '');
  set('state', kind);
  set('where', `${frameName(wanted)}`);
  $('scrubber').value = wanted;
  $('strips').style.setProperty('--at', wanted / Math.max(last, 1));
  $('scrubber').setAttribute('aria-valuetext', `${frameName(wanted)}. ${kind}`);
  $('undo').disabled = !history.length;
  $('redo').disabled = !future.length;
  $('keep').disabled = frame.kind !== 'found';
  $('undraw').disabled = frame.kind !== 'drawn';
  const isIdle = !isRunning() && drawn.length > 0;
  const isOpen = f => f.kind === '' || f.is_outdated;
  $('update').disabled = !isIdle || !frames.some(isOpen);
  $('to-end').disabled = !isIdle || frames.slice(wanted).every(f => f.kind === 'drawn');
  $('to-next').disabled = $('to-end').disabled || !drawn.some(n => n > wanted + 1);
  $('export').disabled = isRunning() || !drawn.length;
  $('doubt').disabled = !frames.some(f => Object.keys(f.confidence).length);
  $('job').hidden = !isRunning();
  if (isRunning()) {
    const progress = $('progress');
    progress.max = job.total;
    if (job.done) progress.value = job.done;
    else progress.removeAttribute('value');
  }
  set('job-text', jobText() || (drawn.length ? '' : 'Draw a mask, then propagate it.'));
};

// ---- Commands.

const command = async action => {
  try {
    await action();
    succeed();
  } catch (error) {
    fail(error);
  }
};
const propagate = until => command(async () => {
  endStroke();
  pause();
  await saving;
  const body = JSON.stringify({frame: wanted, until});
  const changes = await (await ask('POST', `propagate?since=${revision}`, body)).json();
  doubted = [];
  follows = true;
  take(changes);
  say('Propagation has begun');
});
const cancel = () => command(async () => {
  take(await (await ask('POST', `cancel?since=${revision}`)).json());
});
const undraw = () => {
  if (frames[shown].kind !== 'drawn' || shown !== wanted) return;
  history.push({number: shown, before: pack(mask), after: null});
  future.length = 0;
  setDrawn(shown, null);
};
const keepFound = () => {
  if (frames[shown].kind === 'found' && shown === wanted) commit(null);
};
const exportMasks = () => command(async () => {
  endStroke();
  await saving;
  const result = await (await ask('POST', 'export')).json();
  const lines = [`${result.frames} masks (palette PNGs) were written to ${result.folder}.`];
  if (result.without) lines.push(`${result.without} frames have no mask yet: theirs are empty.`);
  if (result.outdated) lines.push(
    `${result.outdated} were found before a correction. Propagate again to make use of it.`);
  $('exported-text').textContent = lines.join(' ');
  $('exported').showModal();
});
const setSize = value => {
  $('size').value = clamp(value, 1, 200);
  set('size-value', $('size').value);
  drawGuide();
};
const setZoom = value => {
  zoom = clamp(value, 1, 16);
  const stage = $('stage');
  const [x, y] = [
    (stage.scrollLeft + stage.clientWidth / 2) / Math.max(stage.scrollWidth, 1),
    (stage.scrollTop + stage.clientHeight / 2) / Math.max(stage.scrollHeight, 1)];
  const scale = zoom * Math.min(stage.clientWidth / width, stage.clientHeight / height);
  $('paper').style.width = `${Math.floor(width * scale)}px`;
  $('paper').style.height = `${Math.floor(height * scale)}px`;
  stage.scrollLeft = x * stage.scrollWidth - stage.clientWidth / 2;
  stage.scrollTop = y * stage.scrollHeight - stage.clientHeight / 2;
  drawGuide();
};

// ---- Buttons and keys.

const click = (id, action) => $(id).addEventListener('click', action);
click('earlier', () => toDrawn(-1));
click('back', () => jump(-1));
click('play', play);
click('on', () => jump(1));
click('later', () => toDrawn(1));
click('smaller', () => setZoom(zoom / 1.5));
click('larger', () => setZoom(zoom * 1.5));
click('fit', () => setZoom(1));
click('undo', undo);
click('redo', redo);
click('add', addObject);
click('keep', keepFound);
click('undraw', undraw);
click('update', () => propagate('all'));
click('to-end', () => propagate('end'));
click('to-next', () => propagate('next'));
click('cancel', cancel);
click('doubt', toDoubt);
click('export', exportMasks);
click('help', () => $('keys').showModal());
$('scrubber').addEventListener('input', () => { pause(); go(Number($('scrubber').value)); });
$('size').addEventListener('input', () => setSize(Number($('size').value)));
$('opacity').addEventListener('input', () => { setColours(); paint(); });
for (const input of document.querySelectorAll('[name=tool], [name=action]')) {
  input.addEventListener('change', () => {
    endStroke();
    if (tool() !== 'polygon') polygon = [];
    drawGuide();
  });
}

const KEYS = {
  ArrowLeft: event => jump(event.shiftKey ? -10 : -1),
  ArrowRight: event => jump(event.shiftKey ? 10 : 1),
  Home: () => jump(-wanted),
  End: () => jump(last - wanted),
  PageUp: () => toDrawn(-1),
  PageDown: () => toDrawn(1),
  ' ': play,
  b: () => choose('tool', 'brush'),
  p: () => choose('tool', 'polygon'),
  e: () => choose('action', erases() ? 'paint' : 'erase'),
  '[': () => setSize(Math.floor($('size').value / 1.2)),
  ']': () => setSize(Math.ceil($('size').value * 1.2)),
  n: addObject,
  h: () => overlay.classList.toggle('hidden'),
  k: keepFound,
  u: toDoubt,
  s: () => { if (!$('export').disabled) exportMasks(); },
  '+': () => setZoom(zoom * 1.5),
  '=': () => setZoom(zoom * 1.5),
  '-': () => setZoom(zoom / 1.5),
  '0': () => setZoom(1),
  '?': () => $('keys').showModal(),
  Delete: undraw,
  Backspace: () => { polygon.pop(); drawGuide(); },
  Enter: event => {
    if (polygon.length) closePolygon();
    else if (event.shiftKey) $('to-end').click();
    else $('update').click();
  },
  Escape: () => {
    if (polygon.length) polygon = [];
    else if (isRunning()) cancel();
    drawGuide();
  },
};
document.addEventListener('keydown', event => {
  if (document.querySelector('dialog[open]') || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  let action = null;
  if (event.ctrlKey || event.metaKey) {
    action = key === 'y' || (key === 'z' && event.shiftKey) ? redo : key === 'z' ? undo : null;
  } else {
    // Controls keep the keys that they understand themselves.
    const target = event.target;
    const type = target.type ?? '';
    const isSpace = key === ' ' || key === 'Enter';
    if (isSpace && ['BUTTON', 'A'].includes(target.tagName)) return;
    if (key === ' ' && ['radio', 'checkbox'].includes(type)) return;
    const isArrow = /^(Arrow|Home|End|Page)/.test(key);
    if (isArrow && (type === 'radio' || (type === 'range' && target.id !== 'scrubber'))) return;
    if (target === overlay && drawByKey(event)) return event.preventDefault();
    if (/^[1-9]$/.test(key)) action = () => select(objectIds()[Number(key) - 1] ?? object);
    else action = KEYS[key];
  }
  if (!action) return;
  event.preventDefault();
  action(event);
});
window.addEventListener('beforeunload', event => { if (unsaved.size || stroke) event.preventDefault(); });
new ResizeObserver(() => { setZoom(zoom); drawStrips(); }).observe($('stage'));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawStrips);

$('guide').setAttribute('viewBox', `0 0 ${width} ${height}`);
setColours();
setSize(Math.max(3, Math.round(Math.min(width, height) / 20)));
listObjects();
setZoom(1);
describe();
drawStrips();
refresh();
poll();
