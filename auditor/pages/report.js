"use strict";
// Everything that a model wrote comes as text or as escaped HTML; the page's policy lets no other script run.
const base = document.body.dataset.live;
const PAGE = 100;
const byId = (id) => document.getElementById(id);
let rows = [], shown = [], page = 0;

async function unpacked(id) {
  const kept = byId(id);
  if (!kept) return "";
  const bytes = Uint8Array.from(atob(kept.textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
}
async function fetched(path) {
  const answer = await fetch(`${base}/${path}`);
  return answer.ok ? answer.text() : "<p class='bad'>The server does not have it.</p>";
}
const fragment = (kind, number) => (base ? fetched(`${kind}/${number}`) : unpacked(`${kind}-${number}`));

async function fill(place, kind, number) {
  if (place.dataset.filled) return;
  place.dataset.filled = "1";
  place.innerHTML = await fragment(kind, number);
  for (const folded of place.querySelectorAll("[data-fold]")) folded.innerHTML = await unpacked(folded.dataset.fold);
}
function go(link) {
  const panel = link.closest(".audit");
  const wanted = [...panel.querySelectorAll("[data-id]")].find((piece) => piece.dataset.id === link.dataset.go);
  for (const piece of panel.querySelectorAll(".piece.found")) piece.classList.remove("found");
  if (!wanted) return;
  for (let at = wanted.parentElement; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  wanted.classList.add("found");
  wanted.scrollIntoView({ block: "center" });
}
function cell(row, text, name) {
  const made = row.insertCell();
  made.textContent = text ?? "";
  if (name) made.className = name;
}
function draw() {
  const body = byId("audits").tBodies[0];
  body.replaceChildren();
  for (const each of shown.slice(page * PAGE, (page + 1) * PAGE)) {
    const row = body.insertRow();
    row.className = "audit-row";
    row.tabIndex = 0;
    row.dataset.number = each[0];
    cell(row, each[1]); cell(row, each[2]); cell(row, each[3], "n"); cell(row, each[4], "n");
    cell(row, each[5], each[5] === "done" ? "" : "bad");
    cell(row, each[6] === null ? "–" : String(Math.round(each[6] * 100) / 100), "n"); cell(row, each[8], "n"); cell(row, each[7], "says");
  }
  byId("count").textContent = `${shown.length} of ${rows.length} audits; choose one to read it`;
  const pages = byId("pages");
  pages.replaceChildren();
  const last = Math.ceil(shown.length / PAGE) - 1;
  for (const [label, to] of [["‹ before", page - 1], ["next ›", page + 1]]) {
    if (to < 0 || to > last) continue;
    const button = document.createElement("button");
    button.textContent = label;
    button.addEventListener("click", () => { page = to; draw(); byId("filters").scrollIntoView(); });
    pages.append(button, " ");
  }
}
function look() {
  const [organism, agent, status, grade] = ["organism", "agent", "status", "grade"].map((name) => byId(`f-${name}`).value);
  const text = byId("f-text").value.trim().toLowerCase();
  shown = rows.filter((r) => (!organism || r[1] === organism) && (!agent || r[2] === agent) && (!status || r[5] === status)
    && (!text || r[7].toLowerCase().includes(text))
    && (!grade || (grade === "none" ? r[6] === null : r[6] !== null && (grade < 0 ? r[6] < -grade : r[6] >= grade))));
  page = 0;
  draw();
}
async function toggle(row) {
  const next = row.nextElementSibling;
  if (next && next.className === "open-audit") { next.remove(); return; }
  const made = document.createElement("tr");
  made.className = "open-audit";
  const place = made.insertCell();
  place.colSpan = 8;
  const panel = document.createElement("div");
  panel.className = "panel";
  place.append(panel);
  row.after(made);
  await fill(panel, "audit", row.dataset.number);
}
function choices(name, at) {
  const kept = byId(`f-${name}`), value = kept.value;
  while (kept.options.length > 1) kept.remove(1);
  for (const each of [...new Set(rows.map((row) => row[at]))].sort()) kept.add(new Option(each, each));
  kept.value = value;
}
async function load() {
  rows = base ? await (await fetch(`${base}/audits.json`)).json() : JSON.parse(byId("index").textContent);
  choices("organism", 1); choices("agent", 2); choices("status", 5);
  const before = page;
  look();
  page = Math.min(before, Math.max(0, Math.ceil(shown.length / PAGE) - 1));
  draw();
  byId("filters").hidden = false;
}
let known = -1;
async function follow() {
  const told = await (await fetch(`${base}/status.json`)).json();
  byId("live").hidden = !told.open;
  byId("bar").style.width = `${Math.round(100 * told.ended / Math.max(1, told.jobs))}%`;
  byId("stage").textContent = told.line;
  if (known !== -1 && told.ended !== known) {
    if (told.open && !document.querySelector(".open-audit")) await load();
    if (!told.open) location.reload();
  }
  known = told.ended;
  if (told.open) setTimeout(follow, 2000);
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-go]");
  if (link) { event.preventDefault(); go(link); return; }
  const row = event.target.closest("tr.audit-row");
  if (row) toggle(row);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("tr.audit-row")) toggle(event.target);
});
document.addEventListener("toggle", (event) => {
  const part = event.target;
  if (part.open && part.dataset.organism !== undefined) fill(part.querySelector(".fill"), "organism", part.dataset.organism);
}, true);
if (byId("audits")) {
  for (const name of ["organism", "agent", "status", "grade", "text"]) byId(`f-${name}`).addEventListener("input", look);
  load();
}
if (base && byId("live")) follow();
