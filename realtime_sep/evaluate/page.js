"use strict";
// One player for the page: a picture that is clicked plays from there, and a second one of the
// same song goes on at the moment of the first.
const player = new Audio();
let current = null;

function show() {
  if (!current) return;
  current.classList.toggle("playing", !player.paused);
  const part = player.duration ? player.currentTime / player.duration : 0;
  current.querySelector("i").style.left = `calc(${100 * part}% - 1px)`;
  if (!player.paused) requestAnimationFrame(show);
}

function play(tile, seconds, part) {
  if (current) current.classList.remove("on", "playing");
  current = tile;
  tile.classList.add("on");
  player.src = tile.dataset.sound;
  player.onloadedmetadata = () => {
    player.currentTime = seconds ?? part * player.duration;
    player.play();
  };
}

for (const tile of document.querySelectorAll(".tile")) {
  tile.addEventListener("click", (event) => {
    const box = tile.getBoundingClientRect();
    // A click by keyboard has no place.
    const part = event.detail ? (event.clientX - box.left) / box.width : 0;
    if (tile === current) {
      if (event.detail) {
        player.currentTime = part * player.duration;
        player.play();
      } else if (player.paused) player.play();
      else player.pause();
      return;
    }
    const together = current && !player.paused && !player.ended
      && current.closest(".song") === tile.closest(".song");
    play(tile, together ? player.currentTime : null, part);
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== " " || !current || event.target.closest("summary")) return;
  event.preventDefault();
  if (player.paused) player.play();
  else player.pause();
});
// The space bar must not press the focused picture as well.
document.addEventListener("keyup", (event) => {
  if (event.key === " " && current && event.target.closest(".tile")) event.preventDefault();
});
for (const name of ["play", "pause", "ended", "seeked"]) player.addEventListener(name, show);
