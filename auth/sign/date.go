package sign

import "time"

// DateLayout is the form of X-Sdk-Date, in UTC.
const DateLayout = "20060102T150405Z"

// AppendDate appends t as X-Sdk-Date.
func AppendDate(dst []byte, t time.Time) []byte { return t.UTC().AppendFormat(dst, DateLayout) }

// ParseDate reads X-Sdk-Date as seconds since the epoch. It does not allocate.
func ParseDate(b []byte) (unix int64, ok bool) {
	if len(b) != len(DateLayout) || b[8] != 'T' || b[15] != 'Z' {
		return 0, false
	}

	year, month, day := number(b[0:4]), number(b[4:6]), number(b[6:8])
	hour, minute, second := number(b[9:11]), number(b[11:13]), number(b[13:15])

	if year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 {
		return 0, false
	}

	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)

	return t.Unix(), t.Day() == day
}

// number reads decimal digits; -1 means that there is something else.
func number(b []byte) int {
	n := 0

	for _, c := range b {
		if !digitByte(c) {
			return -1
		}

		n = n*10 + int(c-'0')
	}

	return n
}
