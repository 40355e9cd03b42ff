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

// mostBytes is how large the picture in the README may be.
const mostBytes = 120 << 10

// TestPicture writes the picture of the README to the file that ADC_PICTURE names:
// the users of a real run.
func TestPicture(t *testing.T) {
	path := os.Getenv("ADC_PICTURE")
	if path == "" {
		t.Skip("skipped: no file is named in ADC_PICTURE")
	}
	s := newSite(t, 1000, 100)
	s.run(t)
	b := open(t, screen{name: "picture", width: 1280, height: 720}) // which closes before the site does
	b.visit(s.url + "/inventory/users?source=Microsoft+Active+Directory&sort=-lastSuccessfulLoginAt")
	b.fits()
	small, err := fewColours(b.capture())
	if err != nil {
		t.Fatal(err)
	}
	if len(small) > mostBytes {
		t.Errorf("the picture has %d bytes, more than %d", len(small), mostBytes)
	}
	if err := os.WriteFile(path, small, 0o644); err != nil {
		t.Fatal(err)
	}
}

// fewColours writes a picture anew with its 256 commonest colours. A page has hardly
// more: what is lost are shades at the edges of letters.
func fewColours(picture []byte) ([]byte, error) {
	from, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return nil, err
	}
	uses := map[color.RGBA]int{}
	bounds := from.Bounds()
	each := func(do func(x, y int, c color.RGBA)) {
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			for x := bounds.Min.X; x < bounds.Max.X; x++ {
				do(x, y, color.RGBAModel.Convert(from.At(x, y)).(color.RGBA))
			}
		}
	}
	each(func(_, _ int, c color.RGBA) { uses[c]++ })
	colours := slices.SortedFunc(maps.Keys(uses), func(a, b color.RGBA) int { return cmp.Compare(uses[b], uses[a]) })
	var palette color.Palette
	for _, c := range colours[:min(256, len(colours))] {
		palette = append(palette, c)
	}
	nearest := map[color.RGBA]uint8{}
	to := image.NewPaletted(bounds, palette)
	each(func(x, y int, c color.RGBA) {
		index, ok := nearest[c]
		if !ok {
			index = uint8(palette.Index(c))
			nearest[c] = index
		}
		to.SetColorIndex(x, y, index)
	})
	var out bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, to)
	return out.Bytes(), err
}
