// The interactive parts of the page: values under the pointer, lines that can be hidden, other
// axes, sorted and filtered tables, copied texts. Without it the page is complete. The drawing
// functions do what _render/_axis.py and _render/_svg.py do, and a test compares the two.
'use strict';
(() => {
const CHAR = 6.2, SOFT = '#555555', TEXT = '#222222', GRID = '#e4e4e4';
const escaped = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const finite = v => v !== null && Math.abs(v) <= 1e300;
const px = v => v.toFixed(1).replace(/\.0$/, '');
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

// Numbers and axes: _render/_axis.py
const scientific = (v, digits) => {
  const [mantissa, exponent] = v.toExponential(Math.max(digits, 0)).split('e');
  return `${mantissa.includes('.') ? mantissa.replace(/\.?0+$/, '') : mantissa}e${+exponent}`;
};
const number = (v, digits = 4) => {
  if (v === 0) return '0';
  const size = Math.abs(v), short = scientific(v, digits - 1);
  if (!(size > 1e-9 && size < 1e6)) return short;
  if (size >= 10 ** (digits - 1)) return v.toFixed(0);
  let plain = v.toFixed(digits - 1 - Math.floor(Math.log10(size)));
  if (plain.includes('.')) plain = plain.replace(/\.?0+$/, '');
  return size < 1 && short.length < plain.length ? short : plain;
};
const axis = (low, high, log, whole = false) => {
  const bottom = log ? Math.log10(low) : low, top = log ? Math.log10(high) : high;
  return {
    low, high, log, whole,
    at: v => !finite(v) || (log && v <= 0) ? NaN : ((log ? Math.log10(v) : v) - bottom) / (top - bottom),
    value: u => log ? 10 ** (bottom + u * (top - bottom)) : bottom + u * (top - bottom),
  };
};
const fitted = (values, log, pad, upright, whole) => {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (finite(v) && (v > 0 || !log)) { low = Math.min(low, v); high = Math.max(high, v); }
  if (low > high) low = high = 1;
  if (log) {
    if (Math.log10(high) - Math.log10(low) < 1e-12) { low /= Math.sqrt(10); high *= Math.sqrt(10); }
    const ratio = (high / low) ** pad;
    return axis(low / ratio, high * ratio, true);
  }
  const flat = high - low <= Math.max(1e-12 * Math.max(Math.abs(low), Math.abs(high)), 1e-300);
  if (upright && (flat || low < .3 * high)) {
    low = Math.min(low, 0); high = Math.max(high, 0);
    if (high - low <= 1e-300) high = 1;
  } else if (flat) {
    const half = whole || Math.abs(high) <= 1e-300 ? 1 : Math.abs(high) / 2;
    low -= half; high += half;
  }
  const margin = pad * (high - low);
  return axis(upright && low === 0 ? low : low - margin, upright && high === 0 ? high : high + margin, false, whole);
};
const labels = (values, step) => {
  const highest = Math.max(0, ...values.map(Math.abs)), finest = Math.floor(Math.log10(step) + 1e-9);
  if (highest >= 1e-2 && highest < 1e6) return values.map(v => v === 0 ? '0' : v.toFixed(Math.max(0, -finest)));
  return values.map(v => v ? scientific(v, Math.floor(Math.log10(Math.abs(v)) + 1e-9) - finest) : '0');
};
const logTicks = (a, count) => {
  const first = Math.floor(Math.log10(a.low)), last = Math.ceil(Math.log10(a.high)), powers = [];
  for (let k = first; k <= last; k++) powers.push(k);
  const within = values => values.filter(v => v >= a.low * (1 - 1e-9) && v <= a.high * (1 + 1e-9) && v > 0);
  const fine = within(powers.flatMap(k => [1, 2, 5].map(m => +`${m}e${k}`)));
  const decades = within(powers.map(k => +`1e${k}`));
  if (fine.length <= count || decades.length < 2) return fine;
  const stride = Math.ceil(decades.length / Math.max(count, 1));
  return within(powers.filter(k => k % stride === 0).map(k => +`1e${k}`));
};
const ticks = (a, count) => {
  const spaced = a.log ? logTicks(a, count) : [];
  if (spaced.length > 1) return spaced.map(v => [v, number(v)]);
  const rough = (a.high - a.low) / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10, 20].find(m => m * power >= rough * (1 - 1e-9)) * power;
  if (a.whole) step = Math.max(step, 1);
  const values = [];
  for (let i = Math.ceil(a.low / step - 1e-9); i <= Math.floor(a.high / step + 1e-9); i++) values.push(i * step);
  const texts = labels(values, step);
  return values.map((v, i) => [v, texts[i]]);
};

// Charts: _render/_svg.py
const axes = chart => {
  const shown = chart.lines.filter(line => !chart.hidden.has(line.entry));
  const lines = shown.length ? shown : chart.lines;
  const xs = chart.lines.flatMap(line => line.points[0]).concat(chart.marks.map(mark => mark[0])).filter(v => v !== null);
  const x = fitted(xs, chart.logX, .02, false, xs.every(Number.isInteger));
  const range = chart.yRange;
  if (range && !(chart.logY && Math.min(...range) <= 0)) return [x, axis(...range, chart.logY)];
  const ys = lines.flatMap(line => [line.points, ...line.band].flatMap(columns => columns[1]));
  return [x, fitted(ys, chart.logY, .05, true, false)];
};
const stretches = ([xs, ys], x, y, width, height) => {
  const parts = [[]];
  xs.forEach((v, i) => {
    const u = x.at(v), w = y.at(ys[i]);
    if (Number.isNaN(u) || Number.isNaN(w)) parts.push([]);
    else parts.at(-1).push(`${px(u * width)} ${px((1 - Math.min(Math.max(w, -20), 20)) * height)}`);
  });
  return parts.filter(part => part.length);
};
const markers = (line, points) => {
  if (line.style !== 'crosses')
    return points.map(p => { const [x, y] = p.split(' '); return `<circle cx="${x}" cy="${y}" r="2.5" fill="${line.color}"/>`; }).join('');
  return points.length ? `<path d="${points.map(p => `M${p}m-4-4l8 8m0-8l-8 8`).join('')}" stroke="${line.color}" stroke-width="2"/>` : '';
};
const drawnLine = (line, parts) => {
  if (line.style === 'crosses') return markers(line, parts.flat());
  const path = parts.filter(part => part.length > 1).map(part => `M${part.join('L')}`).join('');
  const dots = markers(line, parts.filter(part => part.length === 1 || line.style === 'dots').flat());
  return (path && `<path d="${path}" ${line.pen} fill="none" stroke-linejoin="round"/>`) + dots;
};
const label = (x, y, text, anchor, fill, extra = '') =>
  `<text x="${px(x)}" y="${px(y)}" text-anchor="${anchor}" fill="${fill}"${extra}>${escaped(text)}</text>`;
const draw = (chart, svg) => {
  const [x, y] = axes(chart), box = svg.viewBox.baseVal, plot = svg.querySelector('svg');
  const [grid, marks] = [plot.previousElementSibling, plot.nextElementSibling];
  const yTicks = chart.yTicks ? ticks(y, Math.max(2, Math.floor(box.height / 60))) : [];
  const left = 16 + CHAR * Math.max(...yTicks.map(tick => tick[1].length), yTicks.length ? 0 : 1);
  const right = box.width - 18, top = +plot.getAttribute('y'), height = +plot.getAttribute('height');
  const width = Math.max(right - left, 20), bottom = top + height;
  plot.setAttribute('x', px(left));
  plot.setAttribute('width', px(width));
  let rules = '', texts = '', bands = '';
  for (const [value, text] of yTicks) {
    const v = bottom - y.at(value) * height;
    rules += `M${px(left)} ${px(v)}H${px(left + width)}`;
    texts += label(left - 6, v + 4, text, 'end', SOFT);
  }
  for (const [value, text] of ticks(x, Math.max(2, Math.floor(box.width / 90)))) {
    const u = left + x.at(value) * width;
    rules += `M${px(u)} ${px(top)}V${px(bottom)}`;
    texts += label(u, bottom + 16, text, 'middle', SOFT);
  }
  grid.innerHTML = `<path d="${rules}" stroke="${GRID}"/><path d="M${px(left)} ${px(top)}V${px(bottom)}H${px(left + width)}" stroke="#888888" fill="none"/>${texts}`;
  if (chart.span) {
    const [from, to] = chart.span.map(v => px(x.at(v) * width));
    bands += `<path d="M${from} 0H${to}V${px(height)}H${from}Z" fill="${chart.spanColor}" fill-opacity="0.15"/>`;
  }
  const visible = chart.lines.filter(line => !chart.hidden.has(line.entry));
  for (const line of visible) {
    const [below = [], above = []] = line.band.map(edge => stretches(edge, x, y, width, height));
    below.slice(0, above.length).forEach((part, i) => {
      bands += `<path d="M${[...part, ...above[i].reverse()].join('L')}Z" fill="${line.color}" fill-opacity="0.15"/>`;
    });
  }
  const faint = line => line.style === 'faint';
  const ordered = [...visible.filter(faint), ...visible.filter(line => !faint(line))];
  plot.innerHTML = bands + ordered.map(line => drawnLine(line, stretches(line.points, x, y, width, height))).join('');
  marks.innerHTML = chart.marks.map(([at, text]) => {
    const u = left + x.at(at) * width, half = CHAR * text.length / 2;
    return Number.isNaN(u) ? '' : `<path d="M${px(u)} ${px(top)}V${px(bottom)}" stroke="${TEXT}" stroke-dasharray="4 3"/>`
      + label(Math.min(Math.max(u, left + half), left + width - half), top - 9, text, 'middle', TEXT, ' font-weight="600"');
  }).join('');
};

// The x nearest to a position, and the values there
const nearest = (xs, x, at) => {
  let best = -1, distance = Infinity;
  xs.forEach((v, i) => {
    const d = Math.abs(x.at(v) - at);
    if (d < distance) [best, distance] = [i, d];
  });
  return [best, distance];
};
const valuesAt = (chart, at) => {
  const [x, y] = axes(chart);
  const lines = chart.lines.filter(line => !chart.hidden.has(line.entry) && (line.name || chart.lines.length === 1));
  const drawn = lines.map(line => {
    const keep = line.points[1].map((v, i) => [line.points[0][i], v]).filter(([u, v]) => !Number.isNaN(x.at(u)) && !Number.isNaN(y.at(v)));
    return [line, keep.map(p => p[0]), keep.map(p => p[1])];
  });
  const union = [...new Set(drawn.flatMap(([, xs]) => xs))].sort((a, b) => a - b);
  if (!union.length) return null;
  const snapped = union[nearest(union, x, at)[0]], position = x.at(snapped);
  const rows = [];
  for (const [line, xs, ys] of drawn) {
    const [i, distance] = nearest(xs, x, position);
    if (i >= 0 && distance < .006) rows.push({ line, x: xs[i], value: ys[i], height: y.at(ys[i]) });
  }
  return { x: snapped, position, rows, union, axis: x };
};

const interactive = figure => {
  const source = figure.querySelector('script[type="application/json"]');
  if (!source) return;
  const chart = { ...JSON.parse(source.textContent), hidden: new Set() };
  const pictures = [...figure.querySelectorAll(':scope > svg')];
  const box = element('div', { className: 'values', hidden: true });
  figure.append(box);
  const redraw = () => { leave(); pictures.forEach(svg => draw(chart, svg)); };

  const show = (svg, at, announce) => {
    const values = valuesAt(chart, at);
    if (!values) return leave();
    const plot = svg.querySelector('svg'), width = +plot.getAttribute('width'), height = +plot.getAttribute('height');
    plot.querySelector('.cross')?.remove();
    const u = px(values.position * width);
    plot.insertAdjacentHTML('beforeend', `<g class="cross"><path d="M${u} 0V${px(height)}" stroke="${SOFT}"/>` + values.rows.map(row =>
      `<circle cx="${u}" cy="${px((1 - row.height) * height)}" r="3.5" fill="${row.line.color}"/>`).join('') + '</g>');
    const head = element('div', { className: 'at', textContent: `${chart.xLabel} ${Number.isInteger(values.x) ? values.x.toLocaleString('en') : number(values.x)}` });
    const rows = values.rows.map(row => {
      const key = element('span');
      key.innerHTML = `<svg class="key" width="22" height="12"><path d="M0 6h22" ${row.line.pen}/></svg>`;
      return element('div', {}, key, element('span', { textContent: row.line.name || chart.yLabel }), element('b', { textContent: number(row.value) }));
    });
    box.replaceChildren(head, ...rows);
    box.ariaLive = announce ? 'polite' : 'off';
    box.hidden = false;
    // Next to the crosshair, on the side with more room, and within the figure.
    const outer = figure.getBoundingClientRect(), inner = plot.getBoundingClientRect();
    const picture = svg.getBoundingClientRect(), scale = picture.width / svg.viewBox.baseVal.width;
    const x = picture.left - outer.left + (+plot.getAttribute('x') + values.position * width) * scale;
    const room = outer.width - box.offsetWidth;
    box.style.left = `${Math.max(0, Math.min(room, values.position > .5 ? x - box.offsetWidth - 12 : x + 12))}px`;
    box.style.top = `${picture.top - outer.top + +plot.getAttribute('y') * scale + 8}px`;
    svg.at = values.position;
    return values;
  };
  const leave = () => {
    box.hidden = true;
    figure.querySelectorAll('.cross').forEach(cross => cross.remove());
  };

  for (const svg of pictures) {
    svg.setAttribute('role', 'group');
    svg.setAttribute('tabindex', '0');
    svg.setAttribute('aria-label', `${svg.querySelector('title').textContent}: arrow keys show values`);
    svg.querySelector('title').remove(); // a tooltip would cover the values
    const point = event => {
      const plot = svg.querySelector('svg'), picture = svg.getBoundingClientRect(), scale = picture.width / svg.viewBox.baseVal.width;
      const at = ((event.clientX - picture.left) / scale - plot.getAttribute('x')) / plot.getAttribute('width');
      const v = (event.clientY - picture.top) / scale - plot.getAttribute('y');
      if (at < -.02 || at > 1.02 || v < -4 || v > +plot.getAttribute('height') + 4) leave();
      else show(svg, at, false);
    };
    svg.addEventListener('pointerdown', point);
    svg.addEventListener('pointermove', point);
    svg.addEventListener('pointerleave', event => { if (event.pointerType !== 'touch') leave(); });
    svg.addEventListener('blur', leave);
    svg.addEventListener('keydown', event => {
      if (event.target !== svg) return;
      if (event.key === 'Escape') return leave();
      const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (!move) return;
      event.preventDefault();
      const values = valuesAt(chart, svg.at ?? 0), last = values?.union.length - 1;
      if (!values) return;
      const i = values.union.indexOf(values.x) + (box.hidden && Number.isFinite(move) ? 0 : move);
      show(svg, values.axis.at(values.union[Math.max(0, Math.min(last, i))]), true);
    });
    for (const entry of svg.querySelectorAll('.entry')) {
      const i = +entry.dataset.line;
      const area = entry.getBBox();
      entry.setAttribute('role', 'button');
      entry.setAttribute('tabindex', '0');
      entry.setAttribute('aria-pressed', 'true');
      entry.setAttribute('aria-label', chart.lines[i].name);
      if (area.width) entry.insertAdjacentHTML('afterbegin', `<rect x="${area.x - 3}" y="${area.y - 1}" width="${area.width + 6}" height="${area.height + 2}" fill="none" pointer-events="all"/>`);
      const toggle = () => {
        chart.hidden.has(i) ? chart.hidden.delete(i) : chart.hidden.add(i);
        figure.querySelectorAll(`.entry[data-line="${i}"]`).forEach(e => e.setAttribute('aria-pressed', String(!chart.hidden.has(i))));
        redraw();
      };
      entry.addEventListener('click', toggle);
      entry.addEventListener('keydown', event => {
        if (event.key !== 'Enter' && event.key !== ' ') return;
        event.preventDefault();
        toggle();
      });
    }
  }

  document.addEventListener('pointerdown', event => { if (!figure.contains(event.target)) leave(); });
  const tools = element('div', { className: 'tools' });
  for (const [name, column, key] of [['x', 0, 'logX'], ['y', 1, 'logY']]) {
    const positive = new Set(chart.lines.flatMap(line => line.points[column]).filter(v => v > 0));
    if (positive.size < 2 || (name === 'y' && !chart.yTicks)) continue;
    const button = element('button', { type: 'button', textContent: `log ${name}`, ariaPressed: String(chart[key]) });
    button.addEventListener('click', () => {
      chart[key] = !chart[key];
      button.ariaPressed = String(chart[key]);
      redraw();
    });
    tools.append(button);
  }
  figure.querySelector('figcaption').before(tools);
};

// Tables
const value = cell => {
  const text = cell.textContent.trim();
  if (text === '') return -Infinity; // the reference of its column, such as the best
  const match = /^[<≈~]?\s*([-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?)/i.exec(text);
  return match ? +match[1].replaceAll(',', '') : NaN;
};
const natural = (a, b) => { // numbers in texts by their value: lr 0.003 before lr 0.03, 90 before 4,500
  const [p, q] = [a, b].map(text => text.split(/((?:(?<![\w)])-)?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?)/i));
  for (let i = 0; i < Math.min(p.length, q.length); i++) {
    const order = i % 2 ? p[i].replaceAll(',', '') - q[i].replaceAll(',', '') : p[i].localeCompare(q[i], 'en');
    if (order) return order;
  }
  return p.length - q.length;
};
const sortable = table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], original = [...body.rows];
  heads.forEach((head, column) => {
    const button = element('button', { type: 'button' }, ...head.childNodes);
    head.append(button);
    head.ariaSort = 'none';
    button.addEventListener('click', () => {
      const down = head.ariaSort === 'ascending', sign = down ? -1 : 1;
      heads.forEach(other => { other.ariaSort = 'none'; });
      head.ariaSort = down ? 'descending' : 'ascending';
      const cells = original.map(row => row.cells[column]), absent = cell => cell.textContent.trim() === '-';
      const numeric = cells.every(cell => absent(cell) || !Number.isNaN(value(cell)));
      const text = cell => cell.querySelector('strong')?.textContent ?? cell.textContent;
      const order = (a, b) => numeric ? (value(a) > value(b)) - (value(a) < value(b)) : natural(text(a), text(b));
      const rows = [...original].sort((a, b) => {
        const [p, q] = [a.cells[column], b.cells[column]];
        return absent(p) - absent(q) || (absent(p) ? 0 : sign * order(p, q)); // "-" is last both ways
      });
      body.append(...rows);
    });
  });
};
const filterable = table => {
  const rows = [...table.tBodies[0].rows];
  if (rows.length <= 8) return;
  const input = element('input', { type: 'search', placeholder: 'filter rows', ariaLabel: 'filter rows' });
  const count = element('span', { className: 'soft', ariaLive: 'polite' });
  input.addEventListener('input', () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = [...row.cells].map(cell => cell.textContent).join(' ').toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
    const left = rows.filter(row => !row.hidden).length;
    count.textContent = words.length ? `${left} of ${rows.length} rows` : '';
  });
  table.parentElement.before(element('div', { className: 'filter' }, input, count));
};

// Copied texts
const copyable = code => {
  const text = code.textContent, button = element('button', { type: 'button', className: 'copy', textContent: 'copy', ariaLabel: `copy ${text.slice(0, 200)}` });
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a browser without it, or a page that may not use it
      const area = element('textarea', { value: text });
      document.body.append(area);
      area.select();
      document.execCommand('copy');
      area.remove();
    }
    button.textContent = 'copied';
    setTimeout(() => { button.textContent = 'copy'; }, 1500);
  });
  code.closest('pre') ? code.before(button) : code.append(' ', button);
};

document.querySelectorAll('figure').forEach(interactive);
document.querySelectorAll('.wide:not(.small) > table').forEach(table => { sortable(table); filterable(table); });
document.querySelectorAll('td code, pre code').forEach(copyable);
})();
