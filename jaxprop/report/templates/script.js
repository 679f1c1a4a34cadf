'use strict';

for (const player of document.querySelectorAll('.player')) {
  const sources = JSON.parse(player.querySelector('script').textContent);
  const numbers = JSON.parse(player.dataset.numbers);
  const pictures = player.querySelectorAll('img');
  const button = player.querySelector('button');
  const slider = player.querySelector('input');
  const output = player.querySelector('output');
  const chart = player.parentElement.querySelector('.chart');
  const cursor = chart.querySelector('.cursor');
  const left = Number(chart.dataset.left);
  const step = Number(chart.dataset.step);
  let timer = null;

  const show = index => {
    slider.value = index;
    pictures.forEach((picture, run) => picture.src = sources[run * numbers.length + index]);
    output.textContent = 'frame ' + numbers[index];
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
  chart.addEventListener('pointerdown', seek);
  chart.addEventListener('pointermove', event => { if (event.buttons) seek(event); });
  chart.classList.add('active');
  player.querySelector('.controls').hidden = false;
  play(false);
  show(Number(slider.value));
}

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
