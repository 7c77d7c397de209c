// Plots: values on hover and with the arrow keys, zoom by dragging, downloads. A group of the SVG
// with data-values is a series of points; the group around it with data-box holds its axes.
const NEAR = 30;  // pixels
const make = (beside, name, attributes) => {
  const element = document.createElementNS(beside.namespaceURI, name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  return element;
};
const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);

const scaleOf = text => {
  const [kind, low, high] = text.split(" ");
  const log = kind === "log";
  const f = log ? value => Math.log(Math.max(value, 1e-300)) : value => value;
  return { log, f, inverse: log ? Math.exp : value => value, low: Number(low), high: Number(high) };
};
const axesOf = group => {
  const [left, top, width, height] = group.dataset.box.split(" ").map(Number);
  const x = scaleOf(group.dataset.x), y = scaleOf(group.dataset.y);
  const share = (scale, value) =>
    (scale.f(value) - scale.f(scale.low)) / (scale.f(scale.high) - scale.f(scale.low));
  const back = (scale, part) =>
    scale.inverse(scale.f(scale.low) + part * (scale.f(scale.high) - scale.f(scale.low)));
  return {
    group, left, top, width, height, x, y, whole: [x.low, x.high, y.low, y.high], added: [],
    at: (vx, vy) => [left + width * share(x, vx), top + height * (1 - share(y, vy))],
    value: (px, py) => [back(x, (px - left) / width), back(y, 1 - (py - top) / height)],
    holds: (px, py) => px >= left && px <= left + width && py >= top && py <= top + height,
  };
};
const seriesOf = (group, axes) => {
  const names = group.dataset.names.split("|");
  const rows = group.dataset.values ? group.dataset.values.split(";").map(r => r.split(",")) : [];
  return {
    group, axes, names, rows, kind: group.dataset.kind, who: group.dataset.contender,
    points: rows.map(row => row.map(Number)), told: names.some(Boolean),
  };
};
const isShown = series => !series.group.closest(".gone");

// Numbers on an axis after a zoom: powers of ten, or steps of 1, 2 or 5 times one.
const ticksOf = scale => {
  const low = Math.min(scale.low, scale.high), high = Math.max(scale.low, scale.high);
  if (scale.log && high / low > 20) {
    const first = Math.ceil(Math.log10(low)), last = Math.floor(Math.log10(high));
    return Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
  }
  const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(k => k * power).find(k => k >= raw);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)));
};
const pathOf = points => points.map(([x, y], i) =>
  `${i ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("");

const draw = (axes, all) => {
  const mine = all.filter(series => series.axes === axes);
  const whole = axes.whole.every((end, i) =>
    end === [axes.x.low, axes.x.high, axes.y.low, axes.y.high][i]);
  const text = (x, y, value, anchor) => {
    const label = make(axes.group, "text",
      { x, y, "text-anchor": anchor, "font-size": 10, fill: "#262626" });
    label.textContent = String(Number(value.toPrecision(6)));
    axes.group.append(label);
    axes.added.push(label);
  };
  axes.added.splice(0).forEach(one => one.remove());
  for (const tick of axes.group.querySelectorAll(".tick")) tick.classList.toggle("away", !whole);
  if (!whole) {
    const bottom = axes.top + axes.height;
    for (const v of ticksOf(axes.x)) text(axes.at(v, axes.y.low)[0], bottom + 14, v, "middle");
    for (const v of ticksOf(axes.y)) text(axes.left - 5, axes.at(axes.x.low, v)[1] + 3, v, "end");
  }
  const redraw = (group, d) => {
    const path = group.querySelector(":scope > path");
    if (path) {
      path.dataset.whole ??= path.getAttribute("d");
      path.setAttribute("d", whole ? path.dataset.whole : d);
    }
    for (const mark of group.querySelectorAll("use")) {
      mark.classList.toggle("away", !whole);
    }
  };
  for (const series of mine) {
    const { points, kind, group } = series;
    if (kind === "line") {
      redraw(group, pathOf(points.map(([x, y]) => axes.at(x, y))));
      const band = group.nextElementSibling;
      if (band?.dataset.kind === "band") {
        const low = points.map(p => axes.at(p[0], p[2])), high = points.map(p => axes.at(p[0], p[3]));
        const shape = band.querySelector("path");
        const d = `${pathOf([...low, ...high.reverse()])}z`;
        shape.dataset.whole ??= shape.getAttribute("d");
        for (const use of band.querySelectorAll("use")) use.classList.toggle("away", !whole);
        let own = band.querySelector("path.zoomed");
        if (!whole && !own) {
          own = make(band, "path", { class: "zoomed" });
          const model = band.querySelector("use") ?? shape;
          for (const name of ["fill", "fill-opacity", "clip-path"]) {
            const from = model.closest(`[${name}]`) ?? shape;
            if (from.getAttribute(name)) own.setAttribute(name, from.getAttribute(name));
          }
          band.append(own);
        }
        if (own) {
          own.setAttribute("d", d);
          own.classList.toggle("away", whole);
        }
      }
    } else if (kind === "upright") {
      const x = axes.at(points[0][0], axes.y.low)[0].toFixed(2);
      redraw(group, `M${x} ${axes.top}V${axes.top + axes.height}`);
    } else {
      [...group.querySelectorAll("use")].forEach((mark, i) => {
        if (!points[i]) return;
        const [x, y] = axes.at(points[i][0], points[i][1]);
        mark.setAttribute("x", x.toFixed(2));
        mark.setAttribute("y", y.toFixed(2));
        mark.classList.toggle("away", !axes.holds(x, y));
      });
    }
  }
};

for (const box of document.querySelectorAll(".plot")) {
  const svg = box.querySelector("svg");
  let parts = null, current = null, start = null, frame = null;
  const ring = make(svg, "circle",
    { r: 6, fill: "none", stroke: "#111", "stroke-width": 1.5, class: "away" });
  const read = () => {
    if (parts) return parts;
    const axes = [...svg.querySelectorAll("[data-box]")].map(axesOf);
    const of = group => axes.find(one => one.group === group.closest("[data-box]"));
    const series = [...svg.querySelectorAll("[data-values]")].map(g => seriesOf(g, of(g)))
      .filter(one => one.axes);
    svg.append(ring);
    return parts = { axes, series };
  };
  const place = event => {
    const point = new DOMPoint(event.clientX, event.clientY)
      .matrixTransform(svg.getScreenCTM().inverse());
    return [point.x, point.y];
  };
  const forget = () => {
    tip.hidden = true;
    current = null;
    ring.classList.add("away");
  };
  const tell = (series, index) => {
    current = { series, index };
    const { axes, rows, points, names, who } = series;
    const [x, y] = axes.at(points[index][0], points[index][1]);
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.classList.remove("away");
    const title = document.createElement("strong");
    title.textContent = who;
    const said = names.map((name, i) => name && `${name} ${rows[index][i]}`).filter(Boolean);
    tip.replaceChildren(...(who ? [title] : []), ...said.map(text => {
      const line = document.createElement("div");
      line.textContent = text.replace(/ inf$/, " missed").replace(/ nan$/, " unknown");
      return line;
    }));
    tip.hidden = false;
    const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
    const width = tip.offsetWidth, room = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(4, Math.min(at.x + 14, room - width - 8)) + window.scrollX}px`;
    tip.style.top = `${at.y + 14 + window.scrollY}px`;
  };
  const nearest = ([px, py]) => {
    const { series } = read(), scale = svg.getScreenCTM().a;
    let best = null, distance = NEAR / scale;
    for (const one of series) {
      if (!one.told || !isShown(one) || !one.axes.holds(px, py)) continue;
      one.points.forEach((point, index) => {
        const [x, y] = one.axes.at(point[0], point[1]);
        const far = Math.hypot(x - px, y - py);
        if (far < distance) [best, distance] = [{ series: one, index }, far];
      });
    }
    return best;
  };
  const zoom = (axes, ends) => {
    [axes.x.low, axes.x.high, axes.y.low, axes.y.high] = ends;
    draw(axes, read().series);
    reset.hidden = false;
    forget();
  };
  const unzoom = () => {
    if (reset.hidden) return;
    for (const axes of read().axes) zoom(axes, axes.whole);
    reset.hidden = true;
  };

  box.addEventListener("pointermove", event => {
    const at = place(event);
    if (start) {
      const { axes, from } = start;
      const [x, y] = [Math.min(Math.max(at[0], axes.left), axes.left + axes.width),
        Math.min(Math.max(at[1], axes.top), axes.top + axes.height)];
      Object.entries({ x: Math.min(x, from[0]), y: Math.min(y, from[1]),
        width: Math.abs(x - from[0]), height: Math.abs(y - from[1]) })
        .forEach(([name, set]) => frame.setAttribute(name, set));
      start.to = [x, y];
      return;
    }
    const found = nearest(at);
    if (found) tell(found.series, found.index); else forget();
  });
  box.addEventListener("pointerleave", forget);
  box.addEventListener("pointerdown", event => {
    if (event.button || event.pointerType === "touch") return;
    const from = place(event);
    const axes = read().axes.find(one => "zoom" in one.group.dataset && one.holds(...from));
    if (!axes) return;
    event.preventDefault();  // no selection of text
    box.focus({ preventScroll: true });
    frame = make(svg, "rect", { fill: "#0173b2", "fill-opacity": 0.15, stroke: "#0173b2" });
    svg.append(frame);
    start = { axes, from, to: from };
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointerup", () => {
    if (!start) return;
    const { axes, from, to } = start;
    start = null;
    frame.remove();
    if (Math.abs(from[0] - to[0]) < 5 || Math.abs(from[1] - to[1]) < 5) return;
    const [a, b] = [axes.value(...from), axes.value(...to)];
    const along = [Math.min(a[0], b[0]), Math.max(a[0], b[0])];
    const up = [Math.min(a[1], b[1]), Math.max(a[1], b[1])];
    if (axes.y.low > axes.y.high) up.reverse();
    zoom(axes, [...along, ...up]);
    box.addEventListener("click", event => event.stopPropagation(), { capture: true, once: true });
  });
  box.addEventListener("dblclick", unzoom);
  box.addEventListener("keydown", event => {
    const told = read().series.filter(one => one.told && one.points.length && isShown(one));
    const [step, jump] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1],
      ArrowUp: [0, -1] }[event.key] ?? [0, 0];
    if (event.key === "Escape") {
      forget();
      unzoom();
    } else if (event.key === "Enter" && current?.series.who) {
      highlight(current.series.who);
    } else if ((step || jump) && told.length) {
      event.preventDefault();
      const at = current ? told.indexOf(current.series) : -1;
      const series = at < 0 ? told[0] : told[(at + jump + told.length) % told.length];
      const last = series.points.length - 1;
      const index = at < 0 ? 0 : jump ? Math.min(current.index, last)
        : Math.min(Math.max(current.index + step, 0), last);
      tell(series, index);
    }
  });
  box.addEventListener("blur", forget);

  const name = box.dataset.name;
  const source = () => {
    const copy = svg.cloneNode(true);
    for (const one of copy.querySelectorAll(".away, .gone")) one.remove();
    return new XMLSerializer().serializeToString(copy);
  };
  const reset = tool("Reset zoom", "Reset the zoom", unzoom);
  reset.hidden = true;
  const toolsOf = [
    tool("SVG", `Download ${name}.svg`, () => save(`${name}.svg`, source(), "image/svg+xml")),
    tool("PNG", `Download ${name}.png`, () => {
      const image = new Image(), size = svg.viewBox.baseVal, factor = 2.5;
      image.onload = () => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [size.width * factor, size.height * factor];
        const pen = canvas.getContext("2d");
        pen.fillStyle = "#fff";
        pen.fillRect(0, 0, canvas.width, canvas.height);
        pen.drawImage(image, 0, 0, canvas.width, canvas.height);
        save(`${name}.png`, canvas.toDataURL("image/png"));
      };
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source())}`;
    }),
  ];
  if (svg.querySelector("[data-values]")) {
    toolsOf.push(tool("CSV", `Download the values of ${name}`, () => {
      const lines = [];
      for (const one of read().series.filter(each => each.told)) {
        const kept = one.names.map((title, i) => [title, i]).filter(([title]) => title);
        const head = ["contender", ...kept.map(([title]) => title)];
        const quoted = cells => cells.map(cell => `"${String(cell).replaceAll('"', '""')
          .replace(/^[=+\-@\t\r](?![\d.])/, "'$&")}"`).join(",");
        if (lines.head !== String(head)) lines.push(quoted(head));
        lines.head = String(head);
        for (const row of one.rows) lines.push(quoted([one.who, ...kept.map(([, i]) => row[i])]));
      }
      save(`${name}.csv`, `${lines.join("\n")}\n`, "text/csv");
    }));
  }
  toolbar(box, reset, ...toolsOf);
}
