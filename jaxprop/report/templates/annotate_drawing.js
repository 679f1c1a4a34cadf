// ---- Drawing.

// Steps that can be undone, and done again: the frame's number, and the runs of its drawn mask
// before and after; null stands for no drawn mask.
const history = [];
const future = [];
const before = () => frames[shown].kind === 'drawn' ? pack(mask) : null;
// Makes `mask` the drawn one of the frame shown.
const commit = previous => {
  history.push({number: shown, before: previous, after: pack(mask)});
  const held = ({before, after}) => (before?.length ?? 0) + (after?.length ?? 0);
  while (history.reduce((sum, step) => sum + held(step), 0) > 4e6) history.shift();
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
    if (part.tagName === 'polyline') {
      part.setAttribute('points', points.map(p => `${p.x},${p.y}`).join(' '));
    } else {
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
  if (stroke && event.buttons) {
    (event.getCoalescedEvents?.() ?? [event]).forEach(passed => extendStroke(pointOf(passed)));
  }
  drawGuide();
});
for (const name of ['pointerup', 'pointercancel']) overlay.addEventListener(name, endStroke);
overlay.addEventListener('dblclick', () => { if (polygon.length) closePolygon(); });
overlay.addEventListener('contextmenu', event => event.preventDefault());
overlay.addEventListener('blur', endStroke);

// Keys while the drawing area has the focus; returns whether the key was one of them.
const drawByKey = event => {
  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  const [dx, dy] = steps[event.key] ?? [0, 0];
  if (dx || dy) {
    const step = event.shiftKey ? 1 : 10;
    pen = {
      x: clamp(pen.x + step * dx, 0.5, width - 0.5),
      y: clamp(pen.y + step * dy, 0.5, height - 0.5)};
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
  describe();
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
