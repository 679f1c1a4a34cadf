'use strict';

for (const player of document.querySelectorAll('.player')) {
  const sources = JSON.parse(player.querySelector('.sources').textContent);
  const numbers = JSON.parse(player.dataset.numbers);
  const pictures = player.querySelectorAll('img');
  const button = player.querySelector('.play');
  const slider = player.querySelector('input');
  const output = player.querySelector('output');
  const chart = player.parentElement.querySelector('.chart');
  const cursor = chart.querySelector('.cursor');
  const left = Number(chart.dataset.left);
  const step = Number(chart.dataset.step);
  // Of each frame a path for each colour of the truth, null where it is not annotated.
  const toggle = player.querySelector('.toggle');
  const truth = toggle && JSON.parse(player.querySelector('.outlines').textContent).paths;
  const edges = player.querySelectorAll('.truth path');
  let timer = null;

  // The pictures that the page opens with are in it once.
  const opening = Number(slider.getAttribute('value'));
  pictures.forEach((picture, run) => sources[run * numbers.length + opening] = picture.src);

  const show = index => {
    const outlined = toggle !== null && toggle.getAttribute('aria-pressed') === 'true';
    const paths = outlined && truth[index];
    const name = 'frame ' + numbers[index] + (outlined && !paths ? ', not annotated' : '');
    slider.value = index;
    slider.setAttribute('aria-valuetext', name);
    output.textContent = name;
    pictures.forEach((picture, run) => picture.src = sources[run * numbers.length + index]);
    edges.forEach(edge => edge.setAttribute('d', paths ? paths[edge.dataset.colour] : ''));
    cursor.setAttribute('transform', `translate(${left + numbers[index] * step})`);
  };
  const play = on => {
    clearInterval(timer);
    timer = on ? setInterval(
      () => show((Number(slider.value) + 1) % numbers.length), 1000 / player.dataset.rate) : null;
    button.textContent = on ? '\u275a\u275a' : '\u25b6\ufe0e';
    button.setAttribute('aria-label', on ? 'Pause' : 'Play');
  };
  const seek = event => {
    const inverse = chart.getScreenCTM().inverse();
    const number = (new DOMPoint(event.clientX, 0).matrixTransform(inverse).x - left) / step;
    let nearest = 0;
    numbers.forEach((candidate, index) => {
      if (Math.abs(candidate - number) < Math.abs(numbers[nearest] - number)) nearest = index;
    });
    play(false);
    show(nearest);
  };

  button.addEventListener('click', () => play(timer === null));
  slider.addEventListener('input', () => { play(false); show(Number(slider.value)); });
  if (toggle) toggle.addEventListener('click', () => {
    toggle.setAttribute('aria-pressed', toggle.getAttribute('aria-pressed') === 'false');
    show(Number(slider.value));
  });
  chart.addEventListener('pointerdown', seek);
  chart.addEventListener('pointermove', event => { if (event.buttons) seek(event); });
  chart.classList.add('active');
  player.querySelector('.controls').hidden = false;
  play(false);
  show(opening);
}

// The key T outlines the truth in all players, or in none if it is outlined in all.
document.addEventListener('keydown', event => {
  if (event.key.toLowerCase() !== 't' || event.ctrlKey || event.metaKey || event.altKey) return;
  const toggles = [...document.querySelectorAll('.toggle')];
  const off = toggles.filter(toggle => toggle.getAttribute('aria-pressed') === 'false');
  (off.length ? off : toggles).forEach(toggle => toggle.click());
});

for (const results of document.querySelectorAll('table.sortable')) {
  const headings = [...results.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.addEventListener('click', () => {
    const isText = column === 0;
    const rises = heading.className === 'text';
    const first = rises ? 'ascending' : 'descending';
    const second = rises ? 'descending' : 'ascending';
    const order = heading.getAttribute('aria-sort') === first ? second : first;
    headings.forEach(other => other.removeAttribute('aria-sort'));
    heading.setAttribute('aria-sort', order);
    const sign = order === 'ascending' ? 1 : -1;
    const value = row => row.cells[column].dataset.value;
    const rows = [...results.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === '' || b === '') return (a === '') - (b === '');
      return sign * (isText ? a.localeCompare(b, undefined, {numeric: true}) : a - b);
    });
    results.tBodies[0].append(...rows);
  }));
}
