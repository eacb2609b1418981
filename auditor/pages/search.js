"use strict";
const box = document.getElementById("search");
const count = document.getElementById("count");
const rows = [...document.querySelectorAll("tr.row")];
function look() {
  const wanted = box.value.trim().toLowerCase();
  let found = 0;
  document.body.classList.toggle("searching", wanted !== "");
  for (const row of rows) {
    let any = false;
    for (const cell of row.querySelectorAll(".text")) {
      const hit = wanted !== "" && cell.textContent.toLowerCase().includes(wanted);
      cell.classList.toggle("hit", hit);
      any = any || hit;
      found += hit ? 1 : 0;
    }
    row.classList.toggle("found", any);
  }
  count.textContent = wanted === "" ? "" : `${found} found`;
}
box.addEventListener("input", look);
document.getElementById("search-bar").hidden = false;
