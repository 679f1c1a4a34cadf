// Masks: an id for each pixel, row by row, in a Uint8Array.

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
      const start = Math.max(Math.ceil(crossings[i] - 0.5), 0);
      for (let x = start; x < end; x += 1) visit(y * width + x);
    }
  }
};
