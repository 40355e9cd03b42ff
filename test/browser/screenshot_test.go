package browser

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"slices"
	"testing"
)

// maxScreenshotBytes is the limit for the screenshot in the README.
const maxScreenshotBytes = 120 << 10

// TestPicture writes the screenshot of the README, the users after a real run, to the file
// ADC_PICTURE.
func TestPicture(t *testing.T) {
	path := os.Getenv("ADC_PICTURE")
	if path == "" {
		t.Skip("ADC_PICTURE is not set")
	}
	s := newSite(t, 1000, 100)
	s.run(t)
	b := open(t, screen{name: "picture", width: 1280, height: 720}) // closes before the site
	b.visit(s.url + "/inventory/users?source=Microsoft+Active+Directory&sort=-lastSuccessfulLoginAt")
	b.checkWidth()
	picture, err := reducePalette(b.screenshot())
	if err != nil {
		t.Fatal(err)
	}
	if len(picture) > maxScreenshotBytes {
		t.Errorf("screenshot has %d bytes, want at most %d", len(picture), maxScreenshotBytes)
	}
	if err := os.WriteFile(path, picture, 0o644); err != nil {
		t.Fatal(err)
	}
}

// reducePalette reduces a PNG to its 256 most frequent colors. Pages have few more, which are
// shades at the edges of letters.
func reducePalette(picture []byte) ([]byte, error) {
	source, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return nil, err
	}
	uses := map[color.RGBA]int{}
	bounds := source.Bounds()
	forEachPixel := func(f func(x, y int, c color.RGBA)) {
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			for x := bounds.Min.X; x < bounds.Max.X; x++ {
				f(x, y, color.RGBAModel.Convert(source.At(x, y)).(color.RGBA))
			}
		}
	}
	forEachPixel(func(_, _ int, c color.RGBA) { uses[c]++ })
	colors := slices.SortedFunc(maps.Keys(uses), func(a, b color.RGBA) int { return cmp.Compare(uses[b], uses[a]) })
	var palette color.Palette
	for _, c := range colors[:min(256, len(colors))] {
		palette = append(palette, c)
	}
	nearest := map[color.RGBA]uint8{}
	reduced := image.NewPaletted(bounds, palette)
	forEachPixel(func(x, y int, c color.RGBA) {
		index, ok := nearest[c]
		if !ok {
			index = uint8(palette.Index(c))
			nearest[c] = index
		}
		reduced.SetColorIndex(x, y, index)
	})
	var out bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, reduced)
	return out.Bytes(), err
}
