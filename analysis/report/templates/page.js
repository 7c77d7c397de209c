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

// Filtering: whatever names a workload, a hardware or a ruleset that was not chosen is hidden.
const form = document.querySelector(".filters");
if (form) {
  const selects = [...form.querySelectorAll("select")], said = form.querySelector("output");
  const facets = selects.map(select => select.name);
  const marked = [...document.querySelectorAll(facets.map(name => `[data-${name}]`).join(","))];
  const values = new Map(marked.map(element => [element, facets.map(name => {
    const text = element.dataset[name];
    return text === undefined ? null : JSON.parse(text);
  })]));
  const shownOf = rows => rows.filter(row => !row.hidden).length;
  const filter = () => {
    const chosen = selects.map(select => select.value);
    for (const element of marked) {
      element.hidden = values.get(element).some((known, index) =>
        known !== null && chosen[index] !== "" && !known.includes(chosen[index]));
    }
    // A section whose every picture or table is about another workload.
    for (const section of document.querySelectorAll("[data-parts]")) {
      const parts = section.querySelectorAll("figure[data-workload], .scroll[data-workload]");
      section.hidden = [...parts].every(part => part.hidden);
    }
    const all = [...document.querySelectorAll("#scores tbody tr")];
    said.textContent = `${shownOf(all)} of ${all.length} contenders shown`;
  };
  form.addEventListener("submit", event => event.preventDefault());
  selects.forEach(select => select.addEventListener("change", filter));
  form.addEventListener("reset", event => {
    event.preventDefault();  // the form is reset only after this event
    for (const select of selects) select.value = "";
    filter();
  });
  form.hidden = false;
  filter();
}
