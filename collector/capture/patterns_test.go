package capture

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

func allPatterns(t testing.TB, action PatternAction) *Patterns {
	t.Helper()
	use := map[string]PatternAction{}
	for _, name := range PatternNames() {
		use[name] = action
	}
	p, err := NewPatterns(use, []byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What must be found. The tokens are put together here so that no scanner takes this
// file for one that holds secrets.
var (
	jwt       = "eyJhbGciOiJIUzI1NiJ9" + "." + "eyJzdWIiOiIxMjM0In0" + "." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
	awsKey    = "AKIA" + "IOSFODNN7EXAMPLE"
	githubKey = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
)

var found = map[string][][2]string{
	"card": {
		{"4111111111111111", "[card]"},
		{"pay 4111 1111 1111 1111 now", "pay [card] now"},
		{"4111-1111-1111-1111.", "[card]."},
		{"3782 822463 10005", "[card]"},
		{"378282246310005", "[card]"},
		{"5555555555554444,5105105105105100", "[card],[card]"},
		{"(6011111111111117)", "([card])"},
		{"30569309025904", "[card]"},
		{"3530111333300000", "[card]"},
		{"2223003122003222", "[card]"},
		{"4222222222222", "[card]"},
		{"card:4012888888881881;", "card:[card];"},
		{"4111 1111 1111 1111 12/27", "[card] 12/27"},
		{"4111 1111 1111 1111 123 Main St", "[card] 123 Main St"},
		{"12 4111111111111111 34", "12 [card] 34"},
		{"1234 4111 1111 1111 1111", "1234 [card]"},
		{"4111.1111.1111.1111.", "[card]."},
		{"pay 4111\u00a01111\u00a01111\u00a01111\u00a0EUR 5", "pay [card]\u00a0EUR 5"},
		{"4111\u202f1111\u202f1111\u202f1111", "[card]"},
		{"4111\u20111111\u20111111\u20111111", "[card]"},
		{"4111&#133;1111&#x85;1111&#8232;1111", "[card]"},
		{"4111\u20431111\u20431111\u20431111", "[card]"},
		{"\u20ac4111111111111111\U0001F4B3", "\u20ac[card]\U0001F4B3"},
		{"\u03b14111111111111111 \u2103", "\u03b1[card] \u2103"},
		{"3782\u2013822463\u201310005", "[card]"},
		{"4111 1111\u00a01111 1111", "[card]"},
		{"\u201c4111111111111111\u201d", "\u201c[card]\u201d"},
		{"a\u00a04111111111111111\u2026", "a\u00a0[card]\u2026"},
		{"411111 111111 1111", "[card]"},
		{"pay 555555-555555-4444.", "pay [card]."},
		{"3782-822463-10005", "[card]"},
		{"card4111111111111111x", "card[card]x"},
		{"x4111111111111111", "x[card]"},
		{"4111111111111111x", "[card]x"},
		{"Kartennummer4111 1111 1111 1111EUR 5", "Kartennummer[card]EUR 5"},
		{"card_378282246310005_exp 5105105105105100EUR", "card_[card]_exp [card]EUR"},
		{"карта4111111111111111и", "карта[card]и"},
		{"2026年5月1日我的卡号是4111111111111111谢谢2", "2026年5月1日我的卡号是[card]谢谢2"},
		{"DEcard5555555555554444", "DEcard[card]"},
		{"pay 4111  1111  1111  1111 now", "pay [card] now"},
		{"4111\t1111\t1111\t1111\tEUR", "[card]\tEUR"},
		{"Card:\n4111\n1111\n1111\n1111\n", "Card:\n[card]\n"},
		{"pay 4111 1111\r\n1111 1111 now", "pay [card] now"},
		{"4111\u00a0 1111\u00a0 1111\u00a0 1111", "[card]"},
		{"4111 1111 1111 1111\n5555 5555 5555 4444", "[card]\n[card]"},
		{"4111 1111 1111 1111\n1234 Main St", "[card]\n1234 Main St"},
		{"12  4111  1111  1111  1111  12/27", "12  [card]  12/27"},
		{"4111   1111   1111   1111", "[card]"},
		{"4111\n\n1111\n\n1111\n\n1111\n\n", "[card]\n\n"},
		{"4111-\n1111-\n1111-\n1111", "[card]"},
		{"4111 \n1111 \n1111 \n1111 \n", "[card] \n"},
		{"pay 4111 1111 \r\n1111 1111, thanks", "pay [card], thanks"},
		{"4111\r\n\r\n1111\r\n\r\n1111\r\n\r\n1111", "[card]"},
		{"4111\r1111\v1111\f1111", "[card]"},
		{"4111\t\t1111\t\t1111\t\t1111", "[card]"},
		{"4111\u2009\u20091111\u00a0 \t1111\u3000\n1111", "[card]"},
		{"4111 - 1111 - 1111 - 1111", "[card]"},
		{"4111 -1111- 1111-\r\n1111.", "[card]."},
		{"4111\u00851111\u20281111\u2029 1111", "[card]"},
		{"4111\u16801111\u205f1111\u20071111\u2028", "[card]\u2028"},
		{"4111\u200b11111111\u200b\u200b1111 4\u200b1\u200b1\u200b1\u200b1111\u200b1111\u200b1111", "[card] [card]"},
		{"12\u200b4111111111111111\u200b12", "12\u200b[card]\u200b12"},
		{"4111\ufe631111\ufe581111-1111", "[card]"},
		{"4111\f1111\v1111\u200b1111\u0085", "[card]\u0085"},
		{"pay 4\u00ad1\u20601\ufeff1\u200d\u200c1111\u00ad11111111\u00ad", "pay [card]\u00ad"},
		{"٤١١١\u200f \u200f1111 \u00ad\u200e١١١١ 1111", "[card]"},
		{"4111\u00a0\u2013\u00a01111\u00a0\u2013\u00a01111 - 1111", "[card]"},
		{"4111. 1111. 1111. 1111. Thanks", "[card]. Thanks"},
		{"4111/1111/1111/1111", "[card]"},
		{"4111 / 1111 / 1111 / 1111 / EUR", "[card] / EUR"},
		{"４１１１　／　１１１１　／　１１１１　／　１１１１", "[card]"},
		{"4111 1111 1111 1111\n\n1234\n", "[card]\n\n1234\n"},
		{"4111 1111 1111 1111\n003", "[card]\n003"}, // nineteen digits that have a right check digit, too
		{"é４１１１１１１１１１１１１１１１é", "é[card]é"},
		{"قیمت ۴۱۱۱ ۱۱۱۱ ۱۱۱۱ ۱۱۱۱ تومان", "قیمت [card] تومان"},
		{"٤١١١١١١١١١١١١١١١", "[card]"},
		{"卡号：４１１１－１１１１－１１１１－１１１１，谢谢", "卡号：[card]，谢谢"},
	},
	"email": {
		{"ann@example.org", "[email]"},
		{"to: Ann.B+x@mail.example.co.uk, now", "to: [email], now"},
		{"<a@b.io>", "<[email]>"},
		{"mailto:a_b-c@x-y.com?subject=1", "mailto:[email]?subject=1"},
		{"a@b.com.", "[email]."},
		{"a@b.com and c@d.com", "[email] and [email]"},
		{"ann@example.org-2024 ann@example.org_x ann@example.org.1 ann@example.org.x", "[email]-2024 [email]_x [email].1 [email].x"},
		{"ssh://ann@example.org@proxy", "ssh://[email]@proxy"},
		{"user=a@b.com&x=1", "user=[email]&x=1"},
		{"josé@exämple.de", "[email]"},
		{"a@xn--bcher-kva.xn--p1ai", "[email]"},
		{"信 ａｎｎ＠ｅｘａｍｐｌｅ．ｏｒｇ", "信 [email]"},
	},
	"iban": {
		{"DE89370400440532013000", "[iban]"},
		{"IBAN: DE89 3704 0044 0532 0130 00!", "IBAN: [iban]!"},
		{"GB29 NWBK 6016 1331 9268 19 x", "[iban] x"},
		{"gb29nwbk60161331926819", "[iban]"},
		{"FR1420041010050500013M02606", "[iban]"},
		{"NO9386011117947", "[iban]"},
		{"(MT84MALT011000012345MTLCAST001S)", "([iban])"},
		{"DE89-3704-0044-0532-0130-00", "[iban]"},
		{"GB29.NWBK.6016.1331.9268.19.", "[iban]."},
		{"DE\u00ad89370\u00ad40044053201\u00ad3000\u00ad", "[iban]\u00ad"},
		{"IBAN\u00a0DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000\u00a0x", "IBAN\u00a0[iban]\u00a0x"},
		{"NO93\u202f8601\u202f1117\u202f947", "[iban]"},
		{"DE89\u20133704\u20130044\u20130532\u20130130\u201300", "[iban]"},
		{"到 ＤＥ８９３７０４００４４０５３２０１３０００，谢谢", "到 [iban]，谢谢"},
		{"DE٨٩ ٣٧٠٤ ٠٠٤٤ ٠٥٣٢ ٠١٣٠ ٠٠", "[iban]"},
		{"invoice_DE89370400440532013000_2026.pdf", "invoice_[iban]_2026.pdf"},
		{"a+DE89370400440532013000+b@DE89370400440532013000@", "a+[iban]+b@[iban]@"},
		{"_GB29 NWBK 6016 1331 9268 19_", "_[iban]_"},
	},
	"phone": {
		{"+4930901820", "[phone]"},
		{"(+49) 30 12345678", "[phone]"},
		{"call (+49)30 12345678, [+49] 30 12345678", "call [phone], [phone]"},
		{"(+49) (0)30 12345678", "[phone]"},
		{"(+49)-30-12345678", "[phone]"},
		{"+(49) 30 12345678", "[phone]"},
		{"(+49 30 12345678)", "([phone])"},
		{"(call +49 30 12345678 now)", "(call [phone] now)"},
		{"+49 - 30 - 12345678", "[phone]"},
		{"tel_+4930901820_2", "tel_[phone]_2"},
		{"call +1 (202) 555-0173 today", "call [phone] today"},
		{"+1-202-555-0173", "[phone]"},
		{"+47 21 49 24 95.", "[phone]."},
		{"+44 20 7946 0958", "[phone]"},
		{"+1.202.555.0173", "[phone]"},
		{"tel:+354 545 1000,", "tel:[phone],"},
		{"+86 138 1234 5678", "[phone]"},
		{"+49 (0)30 901820", "[phone]"},
		{"+49\u200b30\u205f901820", "[phone]"},
		{"+49 30\u00ad90\u00ad18\u00ad20", "[phone]"},
		{"(202)\u200e 555-0173", "[phone]"},
		{"x\u200b+49 30 90\u200b18\u200b20", "x\u200b[phone]"},
		{"x\u200e+49 30 901820", "x\u200e[phone]"},
		{"+49\u00a030\u00a0901820", "[phone]"},
		{"+33\u202f1\u202f42\u202f68\u202f53\u202f00.", "[phone]."},
		{"+1\u2011202\u2011555\u20110173", "[phone]"},
		{"\ufeff+12025550173", "\ufeff[phone]"},
		{"tel:\u061c+1\u2060202-555-0173\u200e", "tel:\u061c[phone]\u200e"},
		{"tel:\u061c+\u00ad1202-555-0173", "tel:\u061c[phone]"},
		{"\u180e(202) 555-0173", "\u180e[phone]"},
		{"call \ufe0f(\u200e202) 555-0173", "call \ufe0f[phone]"},
		{"\U0001F4DE+12025550173\u2705", "\U0001F4DE[phone]\u2705"},
		{"\u260e\ufe0f+12025550173", "\u260e\ufe0f[phone]"},
		{"(555) 123-4567", "[phone]"},
		{"call (202)555-0173, now", "call [phone], now"},
		{"(202) 555 0173", "[phone]"},
		{"tel:(202)\u00a0555-0173", "tel:[phone]"},
		{"555-123-4567", "[phone]"},
		{"phone=202-555-0173&x=1", "phone=[phone]&x=1"},
		{"202-555-0173 x12", "[phone] x12"},
		{"202\u2013555\u20130173", "[phone]"},
		{"202.555.0173.", "[phone]."},
		{"1-800-555-0199", "[phone]"},
		{"1 (800) 555-0199", "[phone]"},
		{"0049 30 901820", "[phone]"},
		{"0049-30-901820!", "[phone]!"},
		{"0049 (0)30 901820", "[phone]"},
		{"00354 545 1000", "[phone]"},
		{"001 202 555 0173", "[phone]"},
		{"030/1234567", "[phone]"},
		{"030 / 123 45 67", "[phone]"},
		{"Tel. 0221/123456-0, Fax", "Tel. [phone], Fax"},
		{"(030) 1234567", "[phone]"},
		{"((089) 123 456 78)", "([phone])"},
		{"(020) 7946 0958", "[phone]"},
		{"(02) 9876 5432", "[phone]"},
		{"03-1234-5678", "[phone]"},
		{"010-1234-5678;", "[phone];"},
		{"02-312-3456", "[phone]"},
	},
	"token": {
		{jwt, "[token]"},
		{"Authorization: Bearer " + jwt, "Authorization: Bearer [token]"},
		{"bearer abcdef0123456789abcdef==", "bearer [token]"},
		{"key " + awsKey + ".", "key [token]."},
		{githubKey, "[token]"},
		{"key_" + githubKey + "_x+" + awsKey + "@" + awsKey + "_1", "key_[token]_x+[token]@[token]_1"},
		{"x_" + jwt + "+" + jwt, "x_[token]+[token]"},
		{"my_api_key=0123456789abcdefXYZ", "my_api_key=[token]"},
		{"x=" + githubKey + "&y", "x=[token]&y"},
		{"github_pat_" + "11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz0123456789", "[token]"},
		{"api_key=0123456789abcdefXYZ", "api_key=[token]"},
		{`{"apiKey": "0123456789abcdefXYZ"}`, `{"apiKey": "[token]"}`},
		{"AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "AWS_SECRET_ACCESS_KEY=[token]"},
		{"sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc", "[token]"},
		{"xoxb-" + "123456789012-abcdefABCDEF", "[token]"},
		{"AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY", "[token]"},
	},
}

// What looks like it and is not, of any kind.
var lookAlikes = []string{
	"", " ", "hello world", "Order 4111111111111112", "order-4111-1111-1111-1112", "ORD-20260501-000123", "1620000000000", "1714564800123", "1714564800123456789",
	"2026-05-01T12:00:00.000Z", "2026-05-01 12:00:00+02:00", "20260501120000", "2026-05-01T12:00:00+0100", "12:00:00+00:00",
	"d41d8cd98f00b204e9800998ecf8427e", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"123e4567-e89b-12d3-a456-426614174000", "01a216f7-2224-7dba-98a4-4766a294d077", "3.141592653589793", "4111111111111111.5", "0.4111111111111111", "1e+10", "+1.5e10", "+12345678.90", "+3.14159265358979",
	"x4111111111111112", "4111111111111112x", "card4111111111111111x2", "v2card4111111111111111", "x41111111111111111111", "411111 111111 1112", "411111 1111111111", "411111-111111 1111",
	"ORDER0004111111111111", "evt1714564800123", "req20260501120000123", "0x4111111111111111", "deadbeef4111111111111111", "4111111111111abc", "req_4111111111111abc5", "sha1:da4111111111111111afd80709abcdefabcdefab", "1e4111111111111111", "4111111111111111e5",
	"card_378282246310005_2027", "build20260501120000abc", "IMG_20260501_120000123", "user1234567890123456789", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "41111111111111111111111111", "0000000000000000", "4111 1111 1111", "4111-1111 1111-1111", "4111111111111111-01", "123-4111111111111111",
	"user@host", "@app.route", "git@github", "image@sha256:abcd", "pkg@1.2.3", "a@b", "a@b.c", "a@.com", "a@-b.com", "a.@b.com", "@@@@", "foo@bar..com", "50 @ 3.20",
	"DE89370400440532013001", "DE8937040044053201300", "XX89370400440532013000", "De89370400440532013000", "DE89370400440532013000X", "DE 89 3704", "AB12CD34EF56", "NO9386011117948",
	"+1", "+12", "+0123456789", "1+2345678901", "++4930901820", "+123456789", "+1234567890123456", "a+4930901820", "C++ 2020", "+99 99", "+1 and 2025550173", "+4930901820x",
	"eyJhbGciOiJIUzI1NiJ9", "eyJ.eyJ.x", "eyJhbGciOiJIUzI1NiJ9.abc.def", "bearer of bad news and many other things", "Bearer token", "the bearer: 1234567890123456", "AKIA", "AKIAIOSFODNN7EXAMPL",
	"AKIAIOSFODNN7EXAMPLEX", "xAKIAIOSFODNN7EXAMPLE", "ghp_short", "sk-learn-is-a-library-for-machine-learning-in-python", "api_key=", "api_key=short1", "my api key is here", "access_token=averylongwordwithoutdigits",
	"task_live_status_0123456789abcdef", "risk-0123456789abcdef0123456789abcdef", "192.168.100.200", "fe80::1ff:fe23:4567:890a", "v1.2.3-rc.4+build.5", "SN4111-2222-3333-4444", "978-3-16-148410-0", "9783161484100",
	// Nor what a phone without a country's code looks like.
	"4111.1111.1111.1112", "0.4111.1111.1111.1111", "4111\u20111111\u20111111\u20111111\u20111", "12\u20134111111111111111", "DE89-3704-0044-0532-0130-01", "DE89-3704.0044-0532-0130-00", "DE89--370400440532013000",
	"555-123-456", "5555-123-4567", "155-123-4567", "555-123-45678", "555-123-4567-8", "555-123-4567-A", "A-555-123-4567", "#555-123-4567", "12-555-123-4567", "555 123 4567", "5551234567", "555.123.4567", "1.202.555.0173.4",
	"202.555.0173.1", "192.168.1234", "10.202.555.0173", "$202.555.0173", "f(202) 555-0173", "12 (345) 678-9012", "Nature 521 (555) 436-4444", "(202) 555-01", "(2020) 555-0173", "(102) 555-0173", "(202) 555,017", "(1998) 123-1234",
	"01/02/2026", "012/2026001", "030/12345", "/030/1234567", "v/030/123456", "030/1234567/8", "001/1234567", "1/030/123456", "00/1234567", "2026/11/261200", "030//123456", "030-1234567", "030 1234567", "01 42 68 53 00",
	"0012 0013 0014", "0049 0050 0051", "0049123456789", "00012345678905", "0049", "0044 20261126", "0012.0013.0014", "00:49:30:901820", "7 0049 30 901820", "0001 202 555 0173",
	"(01) 09521234543213", "(01)09521234543213(17)261130", "(02) 20261126", "(01) 2026-11-26", "(05) 12345678", "(00) 123456789", "(007) 1234567", "0-306-40615-2", "3-16-148410-0", "99921-58-10-7", "80-902734-1-6", "01-02-2026", "02-2026-0012",
	"2026-11-26", "26-11-2026", "20:45:00.123", "20:45", "52.5200,13.4050", "-33.8688, 151.2093", "52\u00b031'12\"N", "123-45-6789", "10.0.0.1:8080", "255.255.255.0", "2.0.0-20260101120000-abcdef123456", "1.26.0", "10.1038/nature14539", "123.456.789,00",
	"4111\t1111\t1111\t1112", "4111\t1111\t1111\t1111\t1111", "1234\n4111\n1111\n1111\n1111", "1234  4111  1111  1111  1111", "3782\t822463\t10005", "411111  111111  1111", "4111    1111    1111    1111", "4111\n\n\n\n1111\n\n\n\n1111\n\n\n\n1111", "4111--1111--1111--1111", "4111 -- 1111 -- 1111 -- 1111", "4111 / 1111 - 1111 / 1111", "4111- 1111 1111- 1111",
	"4111 - 1111 - 1111 - 1111 - 12", "12 / 4111 / 1111 / 1111 / 1111", "/12/4111/1111/1111/1111", "4111/1111/1111/1111/1.html", "4111\n\n1111\n\n1111\n\n1111\n\n1111", "1234 \n4111 \n1111 \n1111 \n1111", "4111 + 1111 + 1111 + 1111", "4111,1111,1111,1111", "4111, 1111, 1111, 1111", "4111;1111;1111;1111", "| 4111 | 1111 | 1111 | 1111 |", "4111:1111:1111:1111", "3782 \n822463 \n10005", "3782/822463/10005", "４１１１１１１１１１１１１１１２", "²⁰²⁶ ①②③④", "第２０２６年",
	"4012888888881882", "[card]", "[email:0123456789abcdef]", "UA", "JFK", "N713MQ", "Boeing 737-800", "100000000000000000000000000000000000",
}

func TestPatternsFind(t *testing.T) {
	all := allPatterns(t, PatternMask)
	for kind, list := range found {
		one, err := NewPatterns(map[string]PatternAction{kind: PatternMask}, []byte("0123456789abcdef"))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			for name, p := range map[string]*Patterns{"alone": one, "with all": all} {
				if got := p.Text(c[0]); got != c[1] {
					t.Errorf("%s %s: %q becomes %q, want %q", kind, name, c[0], got, c[1])
				}
			}
			if got := all.Text(c[1]); got != c[1] {
				t.Errorf("%q is found again: %q", c[1], got)
			}
		}
		for other, list := range found {
			for _, c := range list {
				if got := one.Text(c[0]); other != kind && got != c[0] {
					t.Errorf("%s finds something in %q: %q", kind, c[0], got)
				}
			}
		}
	}
}

func TestPatternsLeaveLookAlikes(t *testing.T) {
	p := allPatterns(t, PatternMask)
	for _, s := range lookAlikes {
		if got := p.Text(s); got != s {
			t.Errorf("%q becomes %q", s, got)
		}
	}
	// Numbers, times and hashes by the thousand.
	r, wrong := rand.New(rand.NewPCG(1, 2)), 0
	const n = 20000
	for range n {
		for _, s := range []string{
			fmt.Sprint(r.NormFloat64() * 1e6), fmt.Sprintf("%016.3f", r.Float64()*1e12), fmt.Sprintf("%x", r.Uint64()), fmt.Sprintf("%032x", r.Uint64()), fmt.Sprint(1.6e12 + r.Float64()*1e11),
			fmt.Sprintf("ORD-%010d", r.IntN(1e9)), fmt.Sprintf("%+d", r.IntN(1e9)), fmt.Sprintf("%d", 1_600_000_000_000+r.IntN(1e11)), fmt.Sprintf("%d", 1_600_000_000_000_000+r.IntN(1e14)),
		} {
			if p.Text(s) != s {
				wrong++
				t.Logf("%q becomes %q", s, p.Text(s))
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d look-alikes are taken", wrong, 9*n)
	}
}

// TestPatternsPrecision counts what is found in a million tokens that are numbers, dates,
// codes and places, written as programs and people write them, and private in nothing.
// What has a phone's own form and no check digit is not among them: nobody can tell an
// order that is numbered 202-555-0173 from a phone.
func TestPatternsPrecision(t *testing.T) {
	p := allPatterns(t, PatternMask)
	r := rand.New(rand.NewPCG(3, 4))
	n := func(below int) int { return r.IntN(below) }
	forms := []func() string{
		func() string { return fmt.Sprintf("%04d-%02d-%02d", 1950+n(90), 1+n(12), 1+n(28)) },
		func() string { return fmt.Sprintf("%02d/%02d/%04d", 1+n(28), 1+n(12), 1950+n(90)) },
		func() string { return fmt.Sprintf("%02d.%02d.%04d", 1+n(28), 1+n(12), 1950+n(90)) },
		func() string { return fmt.Sprintf("%02d-%02d-%04d", 1+n(28), 1+n(12), 1950+n(90)) },
		func() string { return fmt.Sprintf("%02d:%02d:%02d.%03d", n(24), n(60), n(60), n(1000)) },
		func() string {
			return fmt.Sprintf("%04d%02d%02dT%02d%02d%02d+0%d00", 1950+n(90), 1+n(12), 1+n(28), n(24), n(60), n(60), n(10))
		},
		func() string { return fmt.Sprintf("%d.%d.%d.%d", n(256), n(256), n(256), n(256)) },
		func() string { return fmt.Sprintf("%d.%d.%d.%d:%d", n(256), n(256), n(256), n(256), n(65536)) },
		func() string { return fmt.Sprintf("v%d.%d.%d", n(30), n(300), n(5000)) },
		func() string { return fmt.Sprintf("%d.%d.%d", n(1000), n(100), n(10000)) },
		func() string { return fmt.Sprintf("%d.%d.%d-rc.%d+%d", n(30), n(300), n(5000), n(9), n(1e9)) },
		func() string { return fmt.Sprintf("%.4f, %.4f", r.Float64()*180-90, r.Float64()*360-180) },
		func() string { return fmt.Sprintf("%+.6f", r.NormFloat64()*1e4) },
		func() string { return fmt.Sprintf("%d,%03d,%03d.%02d", 1+n(999), n(1000), n(1000), n(100)) },
		func() string { return fmt.Sprintf("%d.%03d.%03d,%02d", 1+n(999), n(1000), n(1000), n(100)) },
		func() string { return fmt.Sprintf("%d %03d %03d", 1+n(999), n(1000), n(1000)) },
		func() string { return fmt.Sprintf("978-%d-%02d-%06d-%d", n(10), n(100), n(1e6), n(10)) },
		func() string { return fmt.Sprintf("%d-%03d-%05d-%d", n(10), n(1000), n(1e5), n(10)) },
		func() string { return fmt.Sprintf("97%d%010d", 8+n(2), n(1e10)) },
		func() string { return fmt.Sprintf("ORD-%d-%06d", 2000+n(40), n(1e6)) },
		func() string { return fmt.Sprintf("%03d-%07d-%07d", n(1000), n(1e7), n(1e7)) },
		func() string { return fmt.Sprintf("%08d", n(1e8)) },
		func() string { return fmt.Sprintf("%012d", n(1e12)) },
		func() string { return fmt.Sprintf("%04d %04d %04d", n(100), n(100), n(100)) },
		func() string { return fmt.Sprintf("%03d/%d", n(1000), 1950+n(90)) },
		func() string { return fmt.Sprintf("%d/%04d", 1950+n(90), n(10000)) },
		func() string { return fmt.Sprintf("%d (%d) %d-%d", 1+n(600), 1+n(12), 1+n(3000), 1+n(3000)) },
		func() string { return fmt.Sprintf("(%d) %d", 1+n(99), n(1e6)) },
		func() string { return fmt.Sprintf("(%d, %d)", n(1000), n(1000)) },
		func() string { return fmt.Sprintf("(01)%014d(17)%06d", n(1e14), n(1e6)) },
		func() string { return fmt.Sprintf("%03d-%02d-%04d", n(1000), n(100), n(10000)) },
		func() string { return fmt.Sprintf("%d-%d", n(10000), n(10000)) },
		func() string { return fmt.Sprintf("%dx%dx%d", n(1000), n(1000), n(1000)) },
		func() string { return fmt.Sprintf("/%03d/%06d/%d", n(1000), n(1e6), n(100)) },
		func() string { return fmt.Sprintf("10.%04d/%d.%d", n(10000), n(1e5), n(1e6)) },
		func() string {
			return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", r.Uint32(), n(1<<16), n(1<<12), n(1<<12), r.Uint64N(1<<48))
		},
		func() string {
			return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", n(256), n(256), n(256), n(256), n(256), n(256))
		},
		func() string { return fmt.Sprintf("%.3e", r.NormFloat64()*1e12) },
		func() string { return fmt.Sprintf("$%d.%02d", n(1e5), n(100)) },
		func() string { return fmt.Sprintf("%d %%", n(100)) },
		func() string { return fmt.Sprintf("ORDER%010d", n(1e10)) },
		func() string { return fmt.Sprintf("evt%d", 1_600_000_000_000+n(1e11)) },
		func() string { return fmt.Sprintf("user%d", 1_000_000_000_000_000_000+n(1e18)) },
		func() string { return fmt.Sprintf("req%04d%02d%02d%09d", 1950+n(90), 1+n(12), 1+n(28), n(1e9)) },
		func() string { return fmt.Sprintf("req_%016x", r.Uint64()) },
		func() string { return fmt.Sprintf("0x%016X", r.Uint64()) },
		func() string {
			return fmt.Sprintf("sha256:%016x%016x%016x%016x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64())
		},
		func() string { return fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64()) },
		func() string { return fmt.Sprintf("%06d-%06d-%04d", n(1e5), n(1e6), n(1e4)) },
		func() string {
			return fmt.Sprintf("https://x.example/a?b=%d&amp;c=%%20%d&d=\\u00e9%d", n(1e9), n(1e9), n(1e9))
		},
	}
	const million = 1_000_000
	wrong, seen := 0, 0
	for seen < million {
		// Several together, as the signs of one and the next could be read as one.
		var tokens []string
		for range 20 {
			tokens = append(tokens, forms[n(len(forms))]())
		}
		seen += len(tokens)
		s := strings.Join(tokens, []string{" ", ", ", "\t", "; ", "\u00a0"}[n(5)])
		if got := p.Text(s); got != s {
			wrong += strings.Count(got, "[")
			if wrong < 20 {
				t.Logf("%q becomes %q", s, got)
			}
		}
	}
	t.Logf("%d found in %d tokens", wrong, seen)
	if wrong > 20 {
		t.Errorf("%d of %d tokens are taken for private", wrong, seen)
	}
}

// tableSigns part the columns of a table, its rows, or amounts that are taken from another.
var tableSigns = []string{"  ", "\t", "\n", "\r\n", "   ", "\t\t", "\n\n", " \n", "\r\n\r\n", "\u00a0\u00a0", "\u2009\t", " - ", "- ", " / ", "/", ". ", "-\n"}

// TestPatternsLeaveTables: rows and columns of numbers of four digits are no cards but where
// there are just four of them, and then in one of ten of those that begin like a card.
func TestPatternsLeaveTables(t *testing.T) {
	p := allPatterns(t, PatternMask)
	r := rand.New(rand.NewPCG(5, 6))
	wrong := map[int]int{}
	const rows = 20000
	for range rows {
		for _, columns := range []int{2, 3, 4, 5, 6, 12} {
			row := make([]string, columns)
			for i := range row {
				row[i] = fmt.Sprint(1000 + r.IntN(9000))
			}
			s := "x" + strings.Join(row, tableSigns[r.IntN(len(tableSigns))]) + "x"
			if p.Text(s) != s {
				wrong[columns]++
			}
		}
	}
	t.Logf("by columns: %v of %d", wrong, rows)
	if n := wrong[4]; len(wrong) > 1 || n > rows/20 {
		t.Errorf("taken for cards: %v of %d", wrong, rows)
	}
	for range rows {
		years := make([]string, 4)
		for i := range years {
			years[i] = fmt.Sprint(1900 + r.IntN(200))
		}
		if s := strings.Join(years, "\t"); p.Text(s) != s {
			t.Errorf("%q becomes %q", s, p.Text(s))
		}
	}
}

// TestPatternsLeaveLists: lines of CSV, sums, dates and phones under one another are no cards.
func TestPatternsLeaveLists(t *testing.T) {
	p, err := NewPatterns(map[string]PatternAction{"card": PatternMask}, []byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(11, 12))
	four := func() string { return fmt.Sprintf("%04d", r.IntN(10000)) }
	items := []func() string{
		func() string { return strings.Join([]string{four(), four(), four(), four()}, ",") },
		func() string { return strings.Join([]string{four(), four(), four(), four()}, ", ") },
		func() string { return strings.Join([]string{four(), four(), four(), four()}, " + ") },
		func() string {
			return fmt.Sprintf("%s - %s - %s - %s = %d", four(), four(), four(), four(), r.IntN(100))
		},
		func() string { return fmt.Sprintf("%04d-%02d-%02d", 1950+r.IntN(90), 1+r.IntN(12), 1+r.IntN(28)) },
		func() string {
			return fmt.Sprintf("%04d-%02d-%02d %04d", 1950+r.IntN(90), 1+r.IntN(12), 1+r.IntN(28), r.IntN(10000))
		},
		func() string { return fmt.Sprintf("%03d-%03d-%04d", r.IntN(1000), r.IntN(1000), r.IntN(10000)) },
		func() string { return fmt.Sprintf("%s %s", four(), four()) },
		func() string { return fmt.Sprintf("%s/%s", four(), four()) },
		func() string { return fmt.Sprintf("%06d %04d", r.IntN(1000000), r.IntN(10000)) },
		func() string { return fmt.Sprintf("%d. %s", 1+r.IntN(9), four()) },
	}
	const lists = 20000
	for _, item := range items {
		wrong := 0
		for range lists {
			lines := make([]string, 5)
			for i := range lines {
				lines[i] = item()
			}
			s := strings.Join(lines, []string{"\n", "\n\n", " \n", "\r\n", "\t", "   "}[r.IntN(6)])
			wrong += strings.Count(p.Text(s), "[card]")
		}
		if wrong > 0 {
			t.Errorf("%q and the like: %d of %d are taken for cards", item(), wrong, 5*lists)
		}
	}
}

func TestPatternHashes(t *testing.T) {
	p := allPatterns(t, PatternHash)
	a, again, b := p.Text("ann@example.org"), p.Text("x ann@example.org y"), p.Text("bob@example.org")
	if !strings.HasPrefix(a, "[email:") || len(a) != len("[email:]")+16 || again != "x "+a+" y" || a == b {
		t.Errorf("%q, %q, %q", a, again, b)
	}
	other, err := NewPatterns(map[string]PatternAction{"email": PatternMask}, []byte("another key of bytes"))
	if err != nil {
		t.Fatal(err)
	}
	if other.Text("ann@example.org") != "[email]" || !strings.HasPrefix(other.ID("ann@example.org"), "[email:") || other.ID("ann@example.org") == a {
		t.Error("an id is not hashed under its key")
	}
	var none *Patterns
	if none.Text("ann@example.org") != "ann@example.org" {
		t.Error("no patterns find something")
	}
	for _, bad := range []map[string]PatternAction{{"cards": PatternMask}, {"card": "hide"}, {"card": ""}} {
		if _, err := NewPatterns(bad, []byte("0123456789abcdef")); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if _, err := NewPatterns(map[string]PatternAction{"card": PatternHash}, nil); err == nil {
		t.Error("no key is taken")
	}
}

// TestPatternsFindWhatIsEscaped: in addresses, JSON and HTML, once or twice.
func TestPatternsFindWhatIsEscaped(t *testing.T) {
	p := allPatterns(t, PatternMask)
	for in, want := range map[string]string{
		"a%40b.example": "[email]",
		"GET /users/ann%40example.org/orders?x=1 HTTP/1.1":                     "GET /users/[email]/orders?x=1 HTTP/1.1",
		"https://x.example/p?to=ann%40example.org&n=a%20b#top":                 "https://x.example/p?to=[email]&n=a%20b#top",
		"q=write%20to%20ann%40example.org%20now&b=%zz%":                        "q=write%20to%20[email]%20now&b=%zz%",
		"card=4111%201111%201111%201111&x=1":                                   "card=[card]&x=1",
		"card=4111+1111+1111+1111;tel=%2B4930901820":                           "card=[card];tel=[phone]",
		"iban=DE89%203704%200044%200532%200130%2000":                           "iban=[iban]",
		"u=https%3A%2F%2Fx.example%2F%3Fto%3Dann%2540example.org":              "u=https%3A%2F%2Fx.example%2F%3Fto%3D[email]",
		"%41nn%40example.org":                                                  "[email]",
		`{"u":"/x?a=ann%40example.org","ann@example.org":"100%"}`:              `{"u":"/x?a=[email]","[email]":"100%"}`,
		"100% of 50%20 a%40b 1+1=2+2 50%":                                      "100% of 50%20 a%40b 1+1=2+2 50%",
		`{"to":"ann\u0040example.org","x":"\u00e9\n"}`:                         `{"to":"[email]","x":"\u00e9\n"}`,
		`{\"to\":\"ann\\u0040example.org\"}`:                                   `{\"to\":\"[email]\"}`,
		`ann\x40example\x2eorg`:                                                "[email]",
		"write ann&#64;example.org &amp; go":                                   "write [email] &amp; go",
		"ann&#x40;example&#46;org;":                                            "[email];",
		"<b>ann&commat;example&period;org</b> a&nbsp;b":                        "<b>[email]</b> a&nbsp;b",
		"&lt;ann&amp;#64;example.org&gt;":                                      "&lt;[email]&gt;",
		"?a=1&copy=2&to=ann%40example.org&b=c&amp;d":                           "?a=1&copy=2&to=[email]&b=c&amp;d",
		"4111&nbsp;1111&nbsp;1111&nbsp;1111":                                   "[card]",
		`"card\u003d4111111111111111"`:                                         `"card\u003d[card]"`,
		`"no 4111 \n1111 \n1111\r\n 1111."`:                                    `"no [card]."`,
		`{\"no\":\"4111 \\n1111 \\n1111 \\n1111\"}`:                            `{\"no\":\"[card]\"}`,
		"4111 &#10;1111 &NewLine;1111&nbsp; 1111":                              "[card]",
		`DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000`:                 "[iban]",
		`4111\v1111\v1111\v1111`:                                               "[card]",
		`DE8\u200b937\u200b040044053201\u200b3000 ann\u200b@exa\u200bmple.org`: "[iban] [email]",
		`card 4111\u00ad1111\u00ad1111\u00ad1111\u00ad, é`:                     `card [card]\u00ad, é`,
		`C:\users\x40\a&b \u0040 a\u0040b &#64; R&D &commat;`:                  `C:\users\x40\a&b \u0040 a\u0040b &#64; R&D &commat;`,
	} {
		if got := p.Text(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	if p.ID("a%40b.example") != p.ID("a@b.example") {
		t.Error("an id that is escaped is another")
	}
}

// TestPatternsOnHostileTexts: texts of a mebibyte that are made to be looked at again and
// again; a form that did would not end within the test's own time.
func TestPatternsOnHostileTexts(t *testing.T) {
	p := allPatterns(t, PatternMask)
	for _, unit := range []string{"eyJ", "eyJ.", "eyJ-", "eyJ/", "a@", "@", "4111 ", "4", "4-", "+", "+1", "+1 ", "(", "(0", "(030) ", "030/", "0049 ", "555-", "1-", "202.", "\u00a0", "4111\u00a0", "4\u00ad", "\u00ad", "4\u00ad\u00ad\u00ad", "DE89-", "DE89", "DE89 ", "bearer ", "api_key=", "apikey:'", "ghp_a", "sk-", "a.", "é@é.", "AKIA", "eyJaaaaaaaaaa.eyJaaaa.", "%40", "%25", "%", "=+", "&", "&#", "&#64;", "&amp;", "&commat", "\\", "\\u", "\\u0040", "\\\\u0040", "x4111", "x4111 ", "x4", "4111111111111111x", "x4111111111111111", "411111 ", "_4111-", "a%40b.io&", "=1+%2B"} {
		s := strings.Repeat(unit, 1<<20/len(unit))
		if got := p.Text(s); len(got) > 2*len(s) {
			t.Errorf("%q grows to %d", unit, len(got))
		}
	}
}

func FuzzPatterns(f *testing.F) {
	for _, list := range found {
		for _, c := range list {
			f.Add(c[0])
		}
	}
	for _, s := range lookAlikes {
		f.Add(s)
	}
	p := allPatterns(f, PatternMask)
	f.Fuzz(func(t *testing.T, s string) {
		got := p.Text(s)
		if got == s {
			return
		}
		// What is left is what was there, around what was found.
		rest := s
		for _, part := range strings.FieldsFunc(strings.NewReplacer("[card]", "\x00", "[email]", "\x00", "[iban]", "\x00", "[phone]", "\x00", "[token]", "\x00").Replace(got), func(r rune) bool { return r == 0 }) {
			i := strings.Index(rest, part)
			if i < 0 && !strings.Contains(s, "\x00") && !strings.Contains(s, "[") {
				t.Fatalf("%q became %q", s, got)
			}
			rest = rest[max(i, 0):]
		}
	})
}

func BenchmarkPatterns(b *testing.B) {
	texts := map[string]string{
		"short code": "N713MQ", "prose": strings.Repeat("The flight from New York was late because of the weather, again. ", 16),
		"numbers": strings.Repeat("1714564800123 3.14159 ORD-20260501 ", 30), "found": "mail ann@example.org or call +1 202 555 0173, card 4111 1111 1111 1111",
	}
	all := allPatterns(b, PatternMask)
	var off *Patterns
	for name, s := range texts {
		for how, p := range map[string]*Patterns{"on": all, "off": off} {
			b.Run(name+"/"+how, func(b *testing.B) {
				b.SetBytes(int64(len(s)))
				b.ReportAllocs()
				for b.Loop() {
					p.Text(s)
				}
			})
		}
	}
}

// TestPatternsAreAppliedToEverything follows one address through every text of every
// record.
func TestPatternsAreAppliedToEverything(t *testing.T) {
	const mail = "ann@example.org"
	r := newRig(t, func(c *Config) { c.Patterns = allPatterns(t, PatternMask) })
	v := version(t)
	p := prediction(2)
	ids := []string{"order of " + mail, "order-7"}
	p.Error, p.ExternalIDs = strings.Repeat("x", 1010)+" from "+mail, ids
	if err := r.Prediction(t.Context(), p, v, tensors(t, []float32{1, 2}, []string{"to " + mail, "Oslo"}), answer(t, 0.5, 0.5)); err != nil {
		t.Fatal(err)
	}
	got, err := collector.DecodePrediction(r.tape.only(t, collector.KindPrediction).Payload)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Features.Str, []string{"to [email]", "Oslo"}) || got.Capture != "redacted" || !strings.Contains(got.Error, " from [emai") {
		t.Errorf("%+v", got)
	}
	if ids[0] != "order of "+mail || !strings.HasPrefix(got.ExternalIDs[0], "order of [email:") || got.ExternalIDs[1] != "order-7" {
		t.Errorf("ids %q and %q", ids, got.ExternalIDs)
	}
	if err := r.Feedback(t.Context(), &collector.Feedback{ExternalID: ids[0], Label: "said " + mail}); err != nil {
		t.Fatal(err)
	}
	f, err := collector.DecodeFeedback(r.tape.only(t, collector.KindFeedback).Payload)
	if err != nil || f.ExternalID != got.ExternalIDs[0] || f.Label != "said [email]" {
		t.Errorf("%+v, %v", f, err)
	}
	e := &collector.Explanation{Model: "m", Version: "1", Attributions: []collector.Attribution{{Feature: "city", Value: mail, Phi: 1}}}
	if err := r.Explanation(t.Context(), e); err != nil || e.Attributions[0].Value != mail {
		t.Fatal(e, err)
	}
	for _, rec := range r.tape.records {
		if strings.Contains(string(rec.Payload), "example.org") {
			t.Errorf("kind %d holds it", rec.Kind)
		}
	}
	q := prediction(1)
	if err := r.Prediction(t.Context(), q, v, tensors(t, []float32{1}, []string{"Oslo"}), answer(t, 0.5)); err != nil || q.Capture != "full" {
		t.Errorf("%q, %v", q.Capture, err)
	}
}

// TestPatternsLeavePrivateFieldsAlone: what stands for a value is no text.
func TestPatternsLeavePrivateFieldsAlone(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Patterns = allPatterns(t, PatternMask) })
	fields := []collector.Field{{Name: "a", DType: engine.String, Elements: 1, Private: collector.PrivacyHash}, {Name: "b", DType: engine.String, Elements: 1}}
	texts := []string{"ann@example.org", "ann@example.org", "4111111111111111", "x"}
	if !r.redactColumn(fields, texts, 2, false) || !slices.Equal(texts, []string{"ann@example.org", "[email]", "4111111111111111", "x"}) {
		t.Errorf("%q", texts)
	}
}

// TestPatternsOnTextsThatBreakOff: what is cut has no complete form to be found by, wherever
// it is cut.
func TestPatternsOnTextsThatBreakOff(t *testing.T) {
	all := allPatterns(t, PatternMask)
	for kind, list := range found {
		if kind == "token" {
			continue // some begin behind their name, which stays
		}
		for _, c := range list {
			// The first found, and what stands before it.
			before, _, _ := strings.Cut(c[1], "["+kind+"]")
			if kind == "email" && before == "user=" || strings.Contains(c[0], "card_") || !strings.HasPrefix(c[0], before) {
				continue
			}
			for cut := len(before) + 1; cut < len(c[0]); cut++ {
				got := all.BrokenOff("so it is " + c[0][:cut])
				if rest, _ := strings.CutPrefix(got, "so it is "); len(rest) > len(before) && rest[:len(before)] == before && rest[len(before)] != '[' {
					t.Errorf("%q, cut off, becomes %q", c[0][:cut], got)
				}
			}
		}
	}
	for in, want := range map[string]string{
		"pay 453957876362148":                    "pay ",
		"pay 4539 5787 6362 148":                 "pay ",
		"pay 4539 5787 6362 ":                    "pay ",
		"pay 4539  5787\n6362\t1":                "pay ",
		"pay 4539\u00a05787\u20116362":           "pay ",
		"pay 4539 \n5787 \n6362 \n":              "pay ",
		"pay 4539\r\n\r\n5787\r\n\r\n6362\r\n\r": "pay ",
		"pay 4539 - 5787 - 6362 -":               "pay ",
		"pay 4539 - 5787 - 6362 - 1":             "pay ",
		"pay 4539 / 5787 / 6362/":                "pay ",
		"pay 4539\u3000\u3000\u30005787\u3000\u3000\u30006362\u3000\u3000\u30001": "pay ",
		"to GB33BUKB2020155555555":                           "to ",
		"to GB33 BUKB 2020 1555 55":                          "to ",
		"to gb33 bukb 2020 ":                                 "to ",
		"to GB3":                                             "to ",
		"write zqrosamund.feld@zqexample":                    "write ",
		"write \"zqrosamund.feld":                            "write ",
		"ask ann@example.org and zqrosamund.f":               "ask [email] and ",
		"ask ann@example.org ":                               "ask [email] ",
		"call +49 (0)30 9018":                                "call ",
		"call (202) 555-01":                                  "call ",
		"api_key: 0123456789abc":                             "api_key: ",
		"bearer " + jwt[:30]:                                 "bearer ",
		"card=4539%205787%206362%201":                        "",
		"it was late in May and then":                        "it was late in May and ",
		"all is said.\n":                                     "all is said.\n",
		"12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28": "12 13 14 15 16 17 18 ",
		"IT is the law":                                      "IT is the ",
		"DE89 and on it":                                     "DE89 and on ",
		"":                                                   "",
		"4539":                                               "",
		"我的卡号是4111111111111111。 谢谢 4539": "我的卡号是[card]。 谢谢 ",
	} {
		if got := all.BrokenOff(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	var none *Patterns
	if got := none.BrokenOff("pay 4539"); got != "pay 4539" {
		t.Errorf("no patterns take out %q", got)
	}
	one, err := NewPatterns(map[string]PatternAction{"email": PatternMask}, []byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	if got := one.BrokenOff("in 1998 1999 he wro"); got != "in 1998 1999 he " || one.BrokenOff("in 1998 1999 ") != "in 1998 1999 " {
		t.Errorf("addresses alone: %q", got)
	}
	if n := len(all.BrokenOff(strings.Repeat("4539 ", 1<<20))); n < 5<<20-100 {
		t.Errorf("%d bytes left", n)
	}
}

// TestTextsThatBreakOffAreCut: of a stream that broke off no half a card is recorded.
func TestTextsThatBreakOffAreCut(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Patterns = allPatterns(t, PatternMask) })
	fields := []collector.Field{{Name: "a", DType: engine.String, Elements: 1, Private: collector.PrivacyHash}, {Name: "b", DType: engine.String, Elements: 1}}
	texts := []string{"abcdef", "pay 453957876362148"}
	if r.redactColumn(fields, texts, 1, true); !slices.Equal(texts, []string{"abcdef", "pay "}) {
		t.Errorf("%q", texts)
	}
}

// TestPatternsBesideSigns: what is no Latin letter parts a word: signs of all scripts, letters of
// others, bytes that are no text; an accent apart goes on the word that it is in.
func TestPatternsBesideSigns(t *testing.T) {
	p, err := NewPatterns(map[string]PatternAction{"card": PatternMask, "email": PatternMask, "iban": PatternMask, "phone": PatternMask, "token": PatternMask}, []byte("a key of sixteen bytes"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{
		"DE89370400440532013000": "[iban]", "ghp_0123456789abcdefABCDEF0123456789abcd": "[token]", "202-555-0173": "[phone]", "+49 30 12345678": "[phone]",
		"4111111111111111": "[card]", "a.b@example.org": "[email]",
	}
	const signs = "「」『』【】《》〈〉〔〕｢｣・〜〝〞،؛؟।॥։׃་።፡™℃№￥×÷²½€→■😀電話はяжшαλאبक한"
	for text, want := range found {
		for _, c := range signs {
			before, after := "x "+string(c), string(c)+" x"
			if got := p.Text(before + text + after); text[0] != 'a' && got != before+want+after {
				t.Errorf("%q between %q reads %q", text, c, got)
			}
		}
		if text[0] == 'a' || text[0] == '4' {
			continue // a part of an address, and found beside letters
		}
		if got := p.Text("x \xff" + text + "\xfe x"); got != "x \xff"+want+"\xfe x" {
			t.Errorf("%q between bytes that are no text reads %q", text, got)
		}
		for _, letters := range []string{"é", "e\u0301", "ß", "Å"} {
			if got := p.Text(letters + text); text[0] != '+' && got != letters+text {
				t.Errorf("%q in the midst of a word reads %q", letters+text, got)
			}
		}
	}
}
