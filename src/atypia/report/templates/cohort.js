"use strict";
// The table of all scans: sorted and filtered in memory, drawn a hundred rows at a time.

const PAGE = 100;
const table = document.getElementById("cohort");
const body = table.tBodies[0];
const filters = document.getElementById("filters");
const shown = document.getElementById("shown");
const more = document.getElementById("more");
const headers = [...table.tHead.rows[0].cells].slice(1); // without the column of pictures
const keys = headers.map((header) => header.dataset.key);

const rows = [...rowsOfPage(), ...rowsOfData()].map(prepared);
let sorting = usualSorting(headers[keys.indexOf(table.dataset.rankedBy)]);
let chosen = rows;
let limit = PAGE;

// A row that stands in the page already.
function rowsOfPage() {
  return [...body.rows].map((element) => ({
    element,
    cells: [...element.cells].slice(1).map((cell) => cell.textContent),
    flagged: element.dataset.flags.includes("flagged"),
    failed: element.dataset.flags.includes("failed"),
  }));
}

// A row whose element is made when it is shown for the first time.
function rowsOfData() {
  return JSON.parse(document.getElementById("others").textContent);
}

function prepared(row, rank) {
  return { flagged: false, failed: false, ...row, rank, text: row.cells.join(" ").toLowerCase() };
}

function elementOf(row) {
  if (row.element) return row.element;
  const element = document.createElement("tr");
  if (row.failed) element.className = "failed";
  const picture = element.insertCell();
  picture.className = "picture";
  if (row.picture) {
    const image = document.createElement("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = `${row.cells[0]}, its most abnormal slice`;
    image.src = `data:image/webp;base64,${row.picture}`;
    picture.append(image);
  }
  row.cells.forEach((text, i) => element.append(cellOf(text, i, row.link)));
  if (row.failed) element.lastChild.colSpan = headers.length - 1;
  row.element = element;
  return element;
}

function cellOf(text, i, link) {
  const cell = document.createElement(i === 0 ? "th" : "td");
  if (i === 0) cell.scope = "row";
  if (headers[i].classList.contains("words")) cell.className = "words";
  if (i === 0 && link) {
    const name = document.createElement("a");
    name.href = link;
    name.textContent = text;
    cell.append(name);
  } else {
    cell.textContent = text;
  }
  return cell;
}

// Numbers by value, words by their letters; what is unknown comes last either way, and scans that
// failed after all others. Equal ones keep the order of the page.
function sorted(list) {
  const place = keys.indexOf(sorting.key);
  const words = headers[place].classList.contains("words");
  const sign = sorting.upwards ? 1 : -1;
  const letters = new Intl.Collator(undefined, { numeric: true });
  const values = new Map(
    list.map((row) => [row, words ? (row.cells[place] ?? "-") : parseFloat(row.cells[place])]),
  );
  const unknown = (value) => value === "-" || Number.isNaN(value);
  return [...list].sort((a, b) => {
    const [x, y] = [values.get(a), values.get(b)];
    const last = a.failed - b.failed || unknown(x) - unknown(y);
    if (last) return last;
    const order = words ? letters.compare(x, y) : unknown(x) ? 0 : x - y;
    return sign * order || a.rank - b.rank;
  });
}

function wanted() {
  const given = Object.fromEntries(new FormData(filters));
  const text = (given.text || "").trim().toLowerCase();
  const exact = ["condition", "site"].filter((key) => given[key]);
  return (row) =>
    row.text.includes(text) &&
    exact.every((key) => row.cells[keys.indexOf(key)] === given[key]) &&
    (!given.flagged || row.flagged) &&
    (!given.failed || row.failed);
}

function choose() {
  chosen = sorted(rows.filter(wanted()));
  limit = PAGE;
  for (const header of headers) {
    if (header.dataset.key !== sorting.key) header.removeAttribute("aria-sort");
    else header.setAttribute("aria-sort", sorting.upwards ? "ascending" : "descending");
  }
  show();
}

function show() {
  const now = chosen.slice(0, limit);
  body.replaceChildren(...now.map(elementOf));
  const left = chosen.length - now.length;
  const of = chosen.length === rows.length ? "" : ` (of ${rows.length})`;
  const scans = `${chosen.length} ${chosen.length === 1 ? "scan" : "scans"}${of}`;
  shown.textContent = left ? `${now.length} of ${scans} shown.` : `${scans} shown.`;
  more.hidden = left === 0;
  more.textContent = `Show ${Math.min(PAGE, left)} more of ${left}`;
}

function showMore() {
  const first = limit;
  limit += PAGE;
  show();
  // The keyboard goes on where the new rows begin.
  const name = body.rows[first].querySelector("a") || body.rows[first].cells[1];
  if (name.tagName !== "A") name.tabIndex = -1;
  name.focus();
}

// Words from A on, the lowest p-value and the highest of all other numbers first.
function usualSorting(header) {
  const key = header.dataset.key;
  return { key, upwards: header.classList.contains("words") || key === "p_value" };
}

function sortBy(header) {
  const again = sorting.key === header.dataset.key;
  sorting = again ? { ...sorting, upwards: !sorting.upwards } : usualSorting(header);
  choose();
}

function start() {
  for (const header of headers) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(header));
    header.append(button);
  }
  filters.hidden = false;
  filters.addEventListener("input", choose);
  filters.querySelector("button").addEventListener("click", () => {
    filters.reset();
    choose();
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  choose();
}

start();
