// How loud the source is, as a row of bars.

const BARS = 24;

export class Level {
  constructor(canvas) {
    this.canvas = canvas;
    this.draw(0);
  }

  // peak: 0 to 1
  draw(peak) {
    const pen = this.canvas.getContext("2d");
    const lit = peak ? Math.round(BARS * Math.max(0, 1 + Math.log10(peak) / 2.5)) : 0;
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.fillStyle = getComputedStyle(this.canvas).color;
    for (let bar = 0; bar < BARS; bar++) {
      pen.globalAlpha = bar < lit ? 1 : 0.18;
      pen.fillRect(bar * 5, 4, 3, 12);
    }
  }
}
