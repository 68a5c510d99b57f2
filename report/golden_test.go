package report

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var white = color.NRGBA{0xFF, 0xFF, 0xFF, 0xFF}

var update = flag.Bool("update", false, "write testdata")

// goldenFigures show between them every kind of mark: lines, dashes, dots,
// bands, bars, cells, an image, and text of both weights and directions.
func goldenFigures() map[string]*Figure {
	lines := &Lines{X: Axis{Label: "Hour"}, Y: Axis{Label: "Load (MW)"},
		Series: []Series{
			{Name: "Observed", Y: []float64{2, 4, 3, 5, nan, 4, nan, 6}, Color: Ink},
			{Name: "Forecast", X: []float64{3, 4, 5, 6, 7}, Y: []float64{5, 4.5, 4, 4.5, 5.5}, Dashed: true},
			{Name: "Peaks", X: []float64{1, 3}, Y: []float64{4, 5}, Dots: true}},
		Bands: []Band{{Name: "80 % interval", X: []float64{3, 5, 7}, Lower: []float64{5, 3, 4}, Upper: []float64{5, 5, 7}}},
		Marks: []Mark{{X: 3, Label: "now"}}}
	bars := &Bars{Y: Axis{Label: "Error"}, Categories: []string{"Mon", "Tue", "Wed"},
		Series: []Series{{Name: "LSTM & co", Y: []float64{1, -2, 3}}, {Name: "Naïve", Y: []float64{2, 2, nan}}}}
	heat := &Heat{X: Axis{Label: "Predicted"}, Y: Axis{Label: "True"}, Legend: "count", Format: "%.0f",
		Rows: []string{"yes", "no"}, Columns: []string{"a long name for yes", "日本"}, Values: [][]float64{{9, 1}, {nan, 7}}}
	parallel := &Parallel{Axes: []Axis{{Label: "lr", Log: true, Min: 1e-4, Max: 1e-1}, {Label: "cell", Names: []string{"lstm", "gru"}}, {Label: "loss"}},
		Series: []Series{{Name: "others", Color: Muted, Y: []float64{1e-3, 1, 3}, Items: []int{0}}, {Color: Muted, Y: []float64{5e-2, nan, 2}, Items: []int{1}}, {Name: "best", Color: Green, Y: []float64{1e-2, 0, 1}, Items: []int{2}}}}
	dots := &Heat{Up: true, X: Axis{Label: "lr", Log: true, Min: 1e-4, Max: 1e-1}, Y: Axis{Label: "hidden", Min: 8, Max: 128}, Values: [][]float64{{1, 2, nan}, {2, 3, 4}},
		Dots: Series{X: []float64{0.1, 0.9}, Y: []float64{0.2, 0.8}, Items: []int{0, 2}}}
	return map[string]*Figure{
		"trials": {Title: "Trials", Width: 640, Height: 240, Plot: &Grid{Figures: []*Figure{{Title: "Across", Plot: parallel}, {Title: "Over two", Plot: dots}}}},
		"lines":  {Title: "Demand", Width: 480, Height: 270, Plot: lines},
		"heat":   {Title: "Confusion", Width: 320, Height: 240, Plot: heat},
		"grid":   {Title: "Both", Width: 640, Height: 240, Plot: &Grid{Figures: []*Figure{{Title: "Bars", Plot: bars}, {Title: "Curve", Plot: lines}}}},
	}
}

func TestSVGGolden(t *testing.T) {
	for name, fig := range goldenFigures() {
		svg, err := fig.svg()
		if err != nil {
			t.Fatal(err)
		}
		// How small the images in it are is a matter of the Go release.
		text := imageData.ReplaceAllStringFunc(string(svg), func(s string) string { return describeImage(t, s) })
		file := filepath.Join("testdata", name+".svg")
		if *update {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, wanted := strings.Split(text, "\n"), strings.Split(string(want), "\n")
		for i := range max(len(got), len(wanted)) {
			if i >= len(got) || i >= len(wanted) || got[i] != wanted[i] {
				t.Errorf("%s differs from line %d on; look at the picture, and if it is right run this test with -update:\n%s", file, i+1, strings.Join(got[min(i, len(got)):], "\n"))
				break
			}
		}
	}
}

var imageData = regexp.MustCompile(`data:image/png;base64,[^"]*`)

// describeImage gives the size of an inlined image and its first and last colour.
func describeImage(t *testing.T, s string) string {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "data:image/png;base64,"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r := img.Bounds()
	return fmt.Sprintf("%d x %d pixels from %v to %v", r.Dx(), r.Dy(), img.At(0, 0), img.At(r.Dx()-1, r.Dy()-1))
}

func paintPNG(t *testing.T, fig *Figure) image.Image {
	t.Helper()
	var buf bytes.Buffer
	if err := fig.WritePNG(&buf); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&buf)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// ink is how much of r is covered, in pixels, by what is drawn on white in c.
func ink(img image.Image, r box, c color.NRGBA) float64 {
	sum := 0.0
	for y := int(r.y0 * pngScale); y < int(r.y1*pngScale); y++ {
		for x := int(r.x0 * pngScale); x < int(r.x1*pngScale); x++ {
			sum += float64(0xFF-color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA).R) / float64(0xFF-c.R)
		}
	}
	return sum / (pngScale * pngScale)
}

// TestPNGMarks measures each kind of mark as it is painted.
func TestPNGMarks(t *testing.T) {
	c := newPNGCanvas(200, 100) // boxes here have y downwards
	p := pen{c}
	blue := palette[Blue]
	p.rect(box{10.25, 79.5, 30.25, 89.5}, blue)
	p.dot(50, 85, 8, blue)
	p.line(70, 80, 110, 92, blue, 3)
	p.line(130, 85, 190, 85, blue, 2, 6, 4)
	p.stroke(path{{points: []point{{8, 50}, {40, 50}, {40, 30}}}}, blue, 12)
	p.text(60, 40, "Carousel", style{size: 20, weight: bold, color: blue})
	p.text(170, 10, "Carousel", style{size: 12, color: blue, vertical: true})
	half := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	half.SetNRGBA(0, 0, blue)
	half.SetNRGBA(1, 0, white)
	p.image(box{10, 5, 50, 15}, half)
	p.text(-500, 10, "out of the picture", style{size: 12, color: blue})
	p.text(60, -4, "partly out of it", style{size: 12, color: blue})
	for _, m := range []struct {
		name string
		in   box
		want float64
	}{
		{"rectangle", box{5, 5, 35, 25}, 200},
		{"dot", box{40, 5, 60, 25}, math.Pi * 64},
		{"line", box{65, 5, 120, 25}, 3 * math.Hypot(40, 12)},
		{"dashes", box{125, 10, 195, 20}, 6 * 6 * 2},
		{"second dash", box{140, 10, 146, 20}, 12},
		{"first gap", box{136, 10, 140, 20}, 0},
		{"corner", box{5, 40, 50, 75}, 12*52 - 36 + 9*math.Pi},
		{"left half of the image", box{5, 80, 30, 100}, 17.5 * 10}, // it blends into the other half from its middle on
		{"before the text", box{50, 40, 60.5, 70}, 0},
		{"behind the text", box{60 + textWidth("Carousel", 20, bold), 40, 160, 70}, 0},
		{"under the upright text", box{150, 89.5, 200, 100}, 0},
		{"over the upright text", box{150, 30, 200, 90 - textWidth("Carousel", 12, regular)}, 0},
		{"right of the upright text", box{173, 20, 200, 100}, 0},
	} {
		if got := ink(c.img, m.in, blue); math.Abs(got-m.want) > 0.01*m.want+0.05 {
			t.Errorf("%s covers %.2f pixels, want %.2f", m.name, got, m.want)
		}
	}
	if got := ink(c.img, box{60, 40, 160, 70}, blue); got < 400 || got > 550 {
		t.Errorf("the text covers %.0f pixels", got)
	}
	if got := ink(c.img, box{160, 20, 175, 100}, blue); got < 60 || got > 160 {
		t.Errorf("the upright text covers %.0f pixels", got)
	}
}

// thumbnail averages squares of 8 by 8 dots.
func thumbnail(img image.Image) *image.NRGBA {
	const side = 8
	out := image.NewNRGBA(image.Rect(0, 0, img.Bounds().Dx()/side, img.Bounds().Dy()/side))
	for i := range out.Pix {
		x, y, channel := i/4%out.Rect.Dx(), i/4/out.Rect.Dx(), i%4
		sum := 0
		for j := range side * side {
			c := color.NRGBAModel.Convert(img.At(x*side+j%side, y*side+j/side)).(color.NRGBA)
			sum += int([]uint8{c.R, c.G, c.B, c.A}[channel])
		}
		out.Pix[i] = uint8((sum + side*side/2) / (side * side))
	}
	return out
}

// TestPNGGolden compares pictures with older ones, so far as 8 by 8 dots in one
// tell: a label that moves by a pixel shows, other rounding does not.
func TestPNGGolden(t *testing.T) {
	for name, fig := range goldenFigures() {
		got := thumbnail(paintPNG(t, fig))
		file := filepath.Join("testdata", name+".png")
		if *update {
			var buf bytes.Buffer
			if err := png.Encode(&buf, got); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want := readPNG(t, file)
		if got.Rect != want.Bounds() {
			t.Errorf("%s is %v, the figure %v", file, want.Bounds(), got.Rect)
			continue
		}
		differ := 0
		for y := range got.Rect.Dy() {
			for x := range got.Rect.Dx() {
				a, b := got.NRGBAAt(x, y), color.NRGBAModel.Convert(want.At(x, y)).(color.NRGBA)
				for _, d := range []int{int(a.R) - int(b.R), int(a.G) - int(b.G), int(a.B) - int(b.B), int(a.A) - int(b.A)} {
					if d < -2 || d > 2 {
						if differ == 0 {
							t.Errorf("%s: at %d, %d of the picture, %v, want about %v; look at it, and if it is right run this test with -update", file, 8*x, 8*y, a, b)
						}
						differ++
					}
				}
			}
		}
	}
}

func readPNG(t *testing.T, file string) image.Image {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}
