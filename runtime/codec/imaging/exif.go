package imaging

import "encoding/binary"

// orientation reads the EXIF orientation of a JPEG, 1 (upright) when there is none.
func orientation(b []byte) int {
	for i := 2; i+4 <= len(b); {
		if b[i] != 0xff {
			return 1
		}

		marker := b[i+1]

		switch {
		case marker == 0xff: // fill byte
			i++

			continue
		case marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8): // no length
			i += 2

			continue
		case marker == 0xda || marker == 0xd9: // pixels, or the end
			return 1
		}

		size := int(binary.BigEndian.Uint16(b[i+2:]))
		if size < 2 || i+2+size > len(b) {
			return 1
		}

		segment := b[i+4 : i+2+size]
		if marker == 0xe1 && len(segment) > 6 && string(segment[:6]) == "Exif\x00\x00" {
			return tiffOrientation(segment[6:])
		}

		i += 2 + size
	}

	return 1
}

// tiffOrientation looks tag 0x0112 up in the first directory.
func tiffOrientation(t []byte) int {
	if len(t) < 8 {
		return 1
	}

	var order binary.ByteOrder

	switch string(t[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 1
	}

	at := uint64(order.Uint32(t[4:]))
	if at+2 > uint64(len(t)) {
		return 1
	}

	const entry, tagOrientation, typeShort = 12, 0x0112, 3

	count := uint64(order.Uint16(t[at:]))
	for i := range count {
		e := at + 2 + i*entry
		if e+entry > uint64(len(t)) {
			return 1
		}

		if order.Uint16(t[e:]) != tagOrientation {
			continue
		}

		v := int(order.Uint16(t[e+8:]))
		if order.Uint16(t[e+2:]) != typeShort || v < 1 || v > 8 {
			return 1
		}

		return v
	}

	return 1
}
