// Time: the strips under the scrubber, and going through it.

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
      const swatch = strips.children[index].querySelector('.swatch');
      const filled = getComputedStyle(swatch).backgroundColor;
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
    const left = 1000 / setup.rate - (performance.now() - started);
    if (timer) timer = setTimeout(tick, Math.max(left, 1));
  };
  timer = setTimeout(tick, 0);
  $('play').textContent = '\u275a\u275a';
  $('play').setAttribute('aria-label', 'Pause');
};
const jump = step => {
  pause();
  go(wanted + step);
  say($('scrubber').getAttribute('aria-valuetext'));
};
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
