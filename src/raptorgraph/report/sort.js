"use strict";
// Sort the rows of a table by a column, by click or by Enter and Space on its heading; missing values stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const by = (row, column) => row.cells[column];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].sort((a, b) => {
        const x = by(a, column), y = by(b, column);
        const missing = ("missing" in x.dataset) - ("missing" in y.dataset);
        if (missing || "missing" in x.dataset) return missing;
        if ("value" in x.dataset) return sign * (Number(x.dataset.value) - Number(y.dataset.value));
        return sign * collator.compare(x.textContent, y.textContent);
      });
      body.append(...rows);
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
      document.getElementById("sorted").textContent = `Sorted by ${head.textContent.trim()}, ${order}.`;
    });
  });
}
