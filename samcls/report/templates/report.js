"use strict";
// Tables sort by the column whose name is pressed: numbers by their value, words by their letters.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), row = head.parentElement, place = [...row.children].indexOf(head);
    const body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of row.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (line) => {
      const cell = line.children[place], data = cell.querySelector("data");
      return data ? Number(data.value) : cell.textContent.trim();
    };
    const order = (a, b) => {
      const x = key(a), y = key(b);
      if (typeof x === "number" && typeof y === "number") return x - y;
      if (typeof x === "number") return -1;
      if (typeof y === "number") return 1;
      return x.localeCompare(y, undefined, { numeric: true });
    };
    const lines = [...body.rows].map((line, at) => [line, at]);
    lines.sort((a, b) => (up ? 1 : -1) * order(a[0], b[0]) || a[1] - b[1]);
    body.append(...lines.map((pair) => pair[0]));
  });
}
