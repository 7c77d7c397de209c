"use strict";
// Sorting: every table whose heads are buttons. A cell's number is in data-sort. Missed and
// undefined cells, whose key or text is empty, come last in both directions.
const collator = new Intl.Collator("en", { numeric: true });
const keyOf = cell => {
  if (!cell) return null;
  if (!cell.hasAttribute("data-sort")) return cell.textContent.trim() || null;
  return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
};
const compare = (x, y) =>
  typeof x === "number" && typeof y === "number" ? x - y : collator.compare(String(x), String(y));
const sortBy = (table, column, up) => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
  const keyed = [...body.rows].map(row => ({ row, key: keyOf(row.cells[column]) }));
  keyed.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
    return up ? compare(a.key, b.key) : compare(b.key, a.key);
  });
  body.append(...keyed.map(entry => entry.row));
};
for (const table of document.querySelectorAll("table[data-sortable]")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () =>
      sortBy(table, column, head.getAttribute("aria-sort") !== "ascending"));
  });
}

// Downloads: a table's CSV is the file beside the page.
const save = (name, data, type) => {
  const link = document.createElement("a");
  link.href = type ? URL.createObjectURL(new Blob([data], { type })) : data;
  link.download = name;
  link.click();
};
const tool = (text, label, act) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.ariaLabel = label;
  button.addEventListener("click", act);
  return button;
};
const toolbar = (after, ...buttons) => {
  const bar = document.createElement("div");
  bar.className = "tools";
  bar.append(...buttons);
  after.after(bar);
  return bar;
};
for (const table of document.querySelectorAll("table[data-csv]")) {
  const bar = toolbar(table.parentElement, tool("CSV", `Download ${table.id}.csv`,
    () => save(`${table.id}.csv`, table.dataset.csv, "text/csv")));
  const about = table.parentElement.dataset.workload;
  if (about !== undefined) bar.dataset.workload = about;
}

// Filtering: whatever names a workload, a hardware or a ruleset that was not chosen is hidden, and
// scores become the means over the chosen workloads. Hiding and highlighting a contender works on
// whatever names it, in tables and plots.
const form = document.querySelector(".filters");
let highlight = () => {};
if (form) {
  const said = form.querySelector("output"), board = document.getElementById("contenders");
  const choices = [...form.querySelectorAll("[data-facet]")].map(box => ({
    name: box.dataset.facet, note: box.querySelector("summary span"),
    boxes: [...box.querySelectorAll("input")],
  }));
  const chosenOf = choice => choice.boxes.filter(box => box.checked).map(box => box.value);
  const selector = choices.map(choice => `[data-${choice.name}]`).join(",");
  const marked = selector ? [...document.querySelectorAll(selector)] : [];
  const values = new Map(marked.map(element => [element, choices.map(choice => {
    const text = element.dataset[choice.name];
    return text === undefined ? null : JSON.parse(text);
  })]));
  const scored = [...document.querySelectorAll("[data-shares]")].map(cell => ({
    cell, text: cell.textContent, key: cell.dataset.sort, shares: JSON.parse(cell.dataset.shares),
  }));
  const people = [...document.querySelectorAll("[data-contender]")];
  const shown = board ? [...board.querySelectorAll("input")] : [];
  const names = board ? [...board.querySelectorAll("button")] : [];
  const pressed = button => button.getAttribute("aria-pressed") === "true";

  const rescore = () => {
    const choice = choices.find(one => one.name === "workload");
    const kept = choice ? chosenOf(choice) : [];
    const whole = !choice || kept.length === choice.boxes.length;
    for (const { cell, text, key, shares } of scored) {
      const mine = kept.filter(name => name in shares).map(name => shares[name]);
      const mean = mine.reduce((sum, share) => sum + share, 0) / mine.length;
      cell.textContent = whole ? text : mine.length ? mean.toFixed(3) : "";
      cell.dataset.sort = whole ? key : mine.length ? String(mean) : "";
    }
  };
  const filter = () => {
    const chosen = choices.map(choice => new Set(chosenOf(choice)));
    for (const element of marked) {
      element.hidden = values.get(element).some((known, index) => known !== null
        && known.length && !known.some(value => chosen[index].has(value)));
    }
    // A section whose every picture or table is about another workload.
    for (const section of document.querySelectorAll("[data-parts]")) {
      const parts = section.querySelectorAll("figure[data-workload], .scroll[data-workload]");
      section.hidden = [...parts].every(part => part.hidden);
    }
    choices.forEach((choice, index) => {
      const [count, all] = [chosen[index].size, choice.boxes.length];
      choice.note.textContent = count === all ? "all" : `${count} of ${all}`;
    });
    rescore();
    const gone = new Set(shown.filter(box => !box.checked).map(box => box.value));
    const hot = new Set(names.filter(pressed).map(button => button.dataset.name));
    document.body.classList.toggle("dimmed", hot.size > 0);
    for (const element of people) {
      const name = element.dataset.contender;
      element.classList.toggle("gone", gone.has(name));
      element.classList.toggle("hot", hot.has(name));
    }
    if (board) {
      const parts = [gone.size ? `${shown.length - gone.size} of ${shown.length}` : "all"];
      if (hot.size) parts.push(`${hot.size} highlighted`);
      board.querySelector("summary span").textContent = parts.join(", ");
    }
    const all = [...document.querySelectorAll("[id^=overview] tbody tr")];
    const left = all.filter(row => !row.closest("[hidden]") && !row.classList.contains("gone"));
    const [some, every] = [left, all].map(rows => new Set(rows.map(row => row.dataset.contender)).size);
    said.textContent = `${some} of ${every} contenders shown`;
  };
  highlight = name => {
    const button = names.find(one => one.dataset.name === name);
    if (!button) return;
    button.setAttribute("aria-pressed", String(!pressed(button)));
    filter();
  };
  names.forEach(button => button.addEventListener("click", () => highlight(button.dataset.name)));
  document.addEventListener("click", event => {
    const target = event.target.closest("tbody th[scope=row], .plot [data-contender]");
    if (!target || window.getSelection().toString()) return;
    const name = target.closest("[data-contender]")?.dataset.contender;
    if (name) highlight(name);
  });
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("change", filter);
  form.addEventListener("reset", event => {
    event.preventDefault();  // the form is reset only after this event
    for (const box of form.querySelectorAll("input")) box.checked = true;
    names.forEach(button => button.setAttribute("aria-pressed", "false"));
    filter();
  });
  document.addEventListener("keydown", event => {
    if (event.key !== "Escape") return;
    for (const open of form.querySelectorAll("details[open]")) open.open = false;
  });
  form.hidden = false;
  filter();
}
