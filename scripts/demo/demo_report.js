"use strict";
// The words light up and a line moves while a recording plays; a click on the time line goes there.
for (const take of document.querySelectorAll(".take")) {
  const line = take.querySelector(".line");
  const scroller = take.querySelector(".scroller");
  const playhead = take.querySelector(".playhead");
  const players = [...take.querySelectorAll("audio")];
  const words = [...take.querySelectorAll(".words span")];
  const length = Number(line.dataset.length);
  let current = players[0];

  const show = () => {
    const time = current.currentTime + Number(current.dataset.offset);
    playhead.hidden = false;
    playhead.style.left = `${(100 * time) / length}%`;
    for (const word of words) {
      word.classList.toggle("now", time >= Number(word.dataset.start) && time < Number(word.dataset.end));
    }
    const at = (line.clientWidth * time) / length;
    if (!current.paused && (at < scroller.scrollLeft || at > scroller.scrollLeft + 0.9 * scroller.clientWidth)) {
      scroller.scrollLeft = at - 0.1 * scroller.clientWidth;
    }
  };
  const follow = () => {
    show();
    if (!current.paused) requestAnimationFrame(follow);
  };
  for (const player of players) {
    player.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
      current = player;
      follow();
    });
    player.addEventListener("seeked", () => {
      if (player === current) show();
    });
  }
  line.addEventListener("click", (event) => {
    const time = (length * (event.clientX - line.getBoundingClientRect().left)) / line.clientWidth;
    current.currentTime = Math.max(0, time - Number(current.dataset.offset));
  });
}
