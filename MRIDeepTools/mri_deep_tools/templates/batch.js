"use strict";
(() => {
  const PAGE = 100;
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = data.columns, rows = data.rows;
  const at = name => columns.indexOf(name);
  const state = at("state"), warned = at("warnings"), id = at("id");
  const picture = columns.length, output = columns.length + 1;
  const words = new Set(["remarks"]);
  const numeric = columns.map((_, i) => rows.some(r => typeof r[i] === "number") && rows.every(r => r[i] === null || r[i] === undefined || typeof r[i] === "number"));
  const filled = columns.map((_, i) => rows.some(r => r[i] !== null && r[i] !== undefined && r[i] !== ""));
  const shown = columns.map((_, i) => i).filter(i => filled[i] || i === id || i === state);
  const texts = rows.map(r => r.slice(0, columns.length).join(" ").toLowerCase());
  let order = rows.map((_, i) => i), fitting = order, page = 0, key = null, down = false;
  const byId = name => document.getElementById(name);
  const choice = byId("state"), search = byId("search"), pictures = byId("pictures");
  const head = document.querySelector("#subjects thead tr"), body = document.querySelector("#subjects tbody");

  const counts = new Map();
  for (const r of rows) counts.set(r[state], (counts.get(r[state]) || 0) + 1);
  const option = (value, text) => { const o = document.createElement("option"); o.value = value; o.textContent = text; choice.append(o); };
  option("", `all (${rows.length})`);
  for (const [name, count] of [...counts].sort()) option(`=${name}`, `${name} (${count})`);
  const withWarnings = rows.filter(r => r[warned] > 0).length;
  if (withWarnings) option("!", `with warnings (${withWarnings})`);

  const make = (tag, text, kind) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (kind) e.className = kind; return e; };
  const first = make("th", "picture"); first.scope = "col"; head.append(first);
  for (const i of shown) {
    const cell = make("th"); cell.scope = "col"; cell.dataset.column = i;
    if (numeric[i]) cell.className = "number";
    const button = make("button", columns[i]); button.type = "button";
    button.addEventListener("click", () => { down = key === i ? !down : false; key = i; sort(); });
    cell.append(button); head.append(cell);
  }

  function compare(a, b) {
    const x = rows[a][key], y = rows[b][key];
    const noX = x === null || x === undefined || x === "", noY = y === null || y === undefined || y === "";
    if (noX || noY) return noX && noY ? a - b : noX ? 1 : -1;
    const difference = numeric[key] ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
    return (down ? -difference : difference) || a - b;
  }
  function sort() {
    order = rows.map((_, i) => i).sort(compare);
    for (const cell of head.children) if (cell.dataset.column !== undefined) {
      if (Number(cell.dataset.column) === key) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    filter();
  }
  function filter() {
    const wanted = choice.value, parts = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    fitting = order.filter(i => (wanted === "" || (wanted === "!" ? rows[i][warned] > 0 : rows[i][state] === wanted.slice(1))) && parts.every(p => texts[i].includes(p)));
    page = 0; draw();
  }
  function thumb(row) {
    const cell = make("td");
    if (!row[picture] || !pictures.checked) return cell;
    const button = make("button", undefined, "thumb"), image = make("img");
    const path = row[picture].split("/").map(encodeURIComponent).join("/");
    button.type = "button"; image.loading = "lazy"; image.decoding = "async"; image.width = 264; image.height = 88;
    image.alt = `Planes of ${row[id]}`; image.src = path;
    image.addEventListener("load", () => image.style.setProperty("--shape", image.naturalWidth / image.naturalHeight));
    button.addEventListener("click", () => enlarge(path, row));
    button.append(image); cell.append(button);
    return cell;
  }
  function enlarge(path, row) {
    const dialog = byId("large");
    dialog.querySelector("img").src = path; dialog.querySelector("img").alt = `Planes of ${row[id]}`;
    dialog.querySelector("p").textContent = row[output] ? `${row[id]}: ${row[output]}` : row[id];
    dialog.showModal();
  }
  byId("large").addEventListener("click", () => byId("large").close());
  function draw() {
    const pages = Math.max(1, Math.ceil(fitting.length / PAGE)), from = page * PAGE;
    const lines = fitting.slice(from, from + PAGE).map(number => {
      const row = rows[number], line = make("tr");
      line.append(thumb(row));
      for (const i of shown) {
        const value = row[i] === null || row[i] === undefined ? "" : String(row[i]);
        const cell = make("td", i === state ? undefined : value, numeric[i] ? "number" : words.has(columns[i]) ? "text" : i === id ? "id" : "");
        if (i === state) cell.append(make("span", value, `badge ${value === "done" ? "good" : value === "failed" ? "bad" : "doubtful"}`));
        line.append(cell);
      }
      return line;
    });
    body.replaceChildren(...lines);
    document.body.classList.toggle("plain", !pictures.checked);
    byId("none").hidden = fitting.length > 0;
    byId("where").textContent = fitting.length ? `${from + 1} to ${from + lines.length} of ${fitting.length}` : "0";
    byId("back").disabled = page === 0; byId("next").disabled = page >= pages - 1;
  }
  const turn = by => { page += by; draw(); document.querySelector("#list").scrollIntoView(); };
  byId("back").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  for (const control of [choice, pictures]) control.addEventListener("change", filter);
  search.addEventListener("input", filter);
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.has("sort") && at(asked.get("sort")) >= 0) { key = at(asked.get("sort")); down = asked.get("order") === "down"; }
  if (asked.has("state")) choice.value = asked.get("state");
  if (asked.has("search")) search.value = asked.get("search");
  if (key === null) filter(); else sort();
})();
