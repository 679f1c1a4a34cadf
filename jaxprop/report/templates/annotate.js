'use strict';

const $ = id => document.getElementById(id);
const setup = JSON.parse($('work').dataset.setup);
const [height, width] = setup.size;
const last = setup.numFrames - 1;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

{% include 'annotate_masks.js' %}

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

{% include 'annotate_frames.js' %}

{% include 'annotate_drawing.js' %}

{% include 'annotate_time.js' %}

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
    ? 'Drawn: kept as it is.' + ended.map(id => ` Object ${id} is not in it, and ends here.`).join('')
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
  $('erase').disabled = !frame.ids.includes(object);
  set('erase', `Erase object ${object} here`);
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
  await saveAll();
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
const eraseObject = () => {
  if (shown !== wanted || stroke) return;
  stroke = {runs: before(), isChanged: false};
  const change = changer(true);
  mask.forEach((id, i) => change(i));
  paint();
  endStroke();
};
const keepFound = () => {
  if (frames[shown].kind === 'found' && shown === wanted) commit(null);
};
const exportMasks = () => command(async () => {
  endStroke();
  await saveAll();
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
click('erase', eraseObject);
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
  h: () => say(overlay.classList.toggle('hidden') ? 'Masks are hidden' : 'Masks are shown'),
  k: keepFound,
  u: toDoubt,
  s: () => { if (!$('export').disabled) exportMasks(); },
  '+': () => setZoom(zoom * 1.5),
  '=': () => setZoom(zoom * 1.5),
  '-': () => setZoom(zoom / 1.5),
  '0': () => setZoom(1),
  '?': () => $('keys').showModal(),
  x: eraseObject,
  Delete: undraw,
  Backspace: () => { polygon.pop(); drawGuide(); },
  Enter: event => {
    if (polygon.length) closePolygon();
    else if (event.shiftKey) $('to-end').click();
    else $('update').click();
  },
  Escape: () => {
    if (stroke) endStroke();
    else if (polygon.length) polygon = [];
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
$('stage').addEventListener('wheel', event => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  setZoom(zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2));
}, {passive: false});
// After a click the arrow keys move in time again, and not the slider that was clicked.
document.addEventListener('click', event => { if (event.detail) document.activeElement?.blur(); });
window.addEventListener('beforeunload', event => {
  if (unsaved.size || stroke) event.preventDefault();
});
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
