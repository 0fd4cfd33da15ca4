const table = document.getElementById("table"), body = table.tBodies[0];
const [words, verdict, by, count] = ["words", "verdict", "by", "count"].map((id) => document.getElementById(id));
const heads = [...table.tHead.rows[0].cells];
const first = [...body.rows];

function sort(column, ascending) {
  const key = (row) => column ? parseFloat(row.cells[column].dataset[by.value]) : row.cells[0].textContent.trim();
  const sign = ascending ? 1 : -1;
  const compare = (a, b) => column ? a - b : a.localeCompare(b, "en", { numeric: true });
  const keyed = first.map((row) => [key(row), row]);
  // lines without a number stay at the end
  keyed.sort(([a], [b]) => (a !== a) - (b !== b) || (a !== a ? 0 : sign * compare(a, b)));
  body.append(...keyed.map(([, row]) => row));
  heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : ascending ? "ascending" : "descending"));
}

function filter() {
  const sought = words.value.trim().toLowerCase();
  for (const row of first) {
    const named = row.cells[0].textContent.toLowerCase().includes(sought);
    row.hidden = !named || (verdict.value && !row.querySelector(`[data-verdict="${verdict.value}"]`));
  }
  count.value = `${first.filter((row) => !row.hidden).length} of ${first.length} rows`;
}

function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  if (target?.tagName === "DETAILS") target.open = true;
}

heads.forEach((head, i) => head.firstChild.addEventListener("click", () => sort(i, head.ariaSort !== "ascending")));
by.addEventListener("input", () => heads.forEach((head, i) => i && head.ariaSort in { ascending: 1, descending: 1 } && sort(i, head.ariaSort === "ascending")));
words.addEventListener("input", filter);
verdict.addEventListener("input", filter);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
document.querySelectorAll(".command").forEach((button) => button.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(button.textContent.trim());
    button.dataset.copied = "copied";
  } catch { // a page of plain http has no clipboard, and a browser may refuse it
    getSelection().selectAllChildren(button.firstElementChild);
    button.dataset.copied = "selected: copy it with Ctrl+C or ⌘C";
  }
}));
addEventListener("hashchange", reveal);
reveal();
filter();
