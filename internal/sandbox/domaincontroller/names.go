package domaincontroller

import "strings"

// culture is where people come from: how they are called, and where they sit.
// Names are pairs, as they are written and as they stand in an address.
type culture struct {
	given, family []spelling
	familyFirst   bool   // and without a space in between
	listed        bool   // common names read "Family, Given"
	city, ou      string // as the address has it, and as the organizational unit does
	state         string
	country, code string
	numeric       string // ISO 3166-1, for countryCode
	streets       []string
	phone         string // # is a digit
}

type spelling struct{ written, latin string }

// spellings reads "Jörg/joerg Anna/anna"; _ stands for a space.
func spellings(text string) []spelling {
	fields := strings.Fields(text)
	list := make([]spelling, len(fields))
	for i, field := range fields {
		written, latin, _ := strings.Cut(strings.ReplaceAll(field, "_", " "), "/")
		list[i] = spelling{written, latin}
	}
	return list
}

var cultures = []culture{
	{
		given:  spellings("Jürgen/juergen Anna/anna Käthe/kaethe Lukas/lukas Jörg/joerg Sabine/sabine Björn/bjoern Heike/heike Matthias/matthias Ulrike/ulrike Günter/guenter Franziska/franziska"),
		family: spellings("Müller/mueller Schmidt/schmidt Weiß/weiss Schröder/schroeder Krüger/krueger Hoffmann/hoffmann Jäger/jaeger Köhler/koehler Vogel/vogel von_Bülow/vonbuelow Groß/gross Lehmann/lehmann"),
		city:   "Köln", ou: "Cologne", state: "Nordrhein-Westfalen", country: "Germany", code: "DE", numeric: "276",
		streets: []string{"Aachener Straße", "Hohenzollernring", "Am Römerturm"}, phone: "+49 151 ########",
	},
	{
		given:  spellings("James/james Mary/mary Siobhán/siobhan William/william Olivia/olivia Renée/renee DeShawn/deshawn Emily/emily Zoë/zoe Michael/michael Ashley/ashley John/john"),
		family: spellings("Smith/smith O'Brien/obrien Johnson/johnson Nuñez/nunez Taylor-Jones/taylor-jones McDonald/mcdonald Washington/washington Lee/lee Brown/brown D'Angelo/dangelo St._James/stjames Miller/miller"),
		listed: true, city: "Foster City", ou: "Foster City", state: "California", country: "United States", code: "US", numeric: "840",
		streets: []string{"E Hillsdale Blvd", "Metro Center Blvd", "Vintage Park Dr"}, phone: "+1 650 555 01##",
	},
	{
		given:  spellings("Αλέξανδρος/alexandros Ελένη/eleni Γιώργος/giorgos Μαρία/maria Νίκος/nikos Κατερίνα/katerina Δημήτρης/dimitris Σοφία/sofia Χρήστος/christos Ιωάννα/ioanna"),
		family: spellings("Παπαδόπουλος/papadopoulos Γεωργίου/georgiou Νικολάου/nikolaou Οικονόμου/oikonomou Βασιλείου/vasileiou Αντωνίου/antoniou Καραγιάννης/karagiannis Μακρής/makris"),
		city:   "Αθήνα", ou: "Athens", state: "Αττική", country: "Greece", code: "GR", numeric: "300",
		streets: []string{"Λεωφόρος Κηφισίας", "Ερμού", "Πανεπιστημίου"}, phone: "+30 69########",
	},
	{
		given:  spellings("Александр/aleksandr Ольга/olga Дмитрий/dmitriy Наталья/natalya Сергей/sergey Екатерина/ekaterina Фёдор/fyodor Юлия/yuliya Алексей/aleksey Вера/vera"),
		family: spellings("Иванов/ivanov Кузнецов/kuznetsov Соловьёв/solovyov Морозов/morozov Лебедев/lebedev Щербаков/shcherbakov Цветаев/tsvetaev Жуков/zhukov"),
		city:   "Алматы", ou: "Almaty", state: "Алматы", country: "Kazakhstan", code: "KZ", numeric: "398",
		streets: []string{"проспект Абая", "улица Толе би", "проспект Достык"}, phone: "+7 701 ### ## ##",
	},
	{
		given:  spellings("محمد/mohammed فاطمة/fatima أحمد/ahmed عائشة/aisha يوسف/yousef مريم/maryam خالد/khaled ليلى/layla عمر/omar نور/noor"),
		family: spellings("الهاشمي/alhashimi المنصوري/almansoori حداد/haddad خوري/khoury النجار/alnajjar السويدي/alsuwaidi منصور/mansour الفارسي/alfarsi"),
		city:   "دبي", ou: "Dubai", country: "United Arab Emirates", code: "AE", numeric: "784",
		streets: []string{"شارع الشيخ زايد", "شارع الخليج", "شارع المكتوم"}, phone: "+971 50 ### ####",
	},
	{
		given:  spellings("דוד/david שרה/sarah יוסף/yosef רחל/rachel משה/moshe נועה/noa אברהם/avraham תמר/tamar איתן/eitan מיכל/michal"),
		family: spellings("כהן/cohen לוי/levi מזרחי/mizrahi פרץ/peretz ביטון/biton אברהם/avraham פרידמן/friedman שפירא/shapira"),
		city:   "תל אביב-יפו", ou: "Tel Aviv", country: "Israel", code: "IL", numeric: "376",
		streets: []string{"שדרות רוטשילד", "רחוב דיזנגוף", "דרך מנחם בגין"}, phone: "+972 54 ### ####",
	},
	{
		given:  spellings("伟/wei 芳/fang 娜/na 秀英/xiuying 敏/min 静/jing 强/qiang 建国/jianguo 丽/li 子轩/zixuan 欣怡/xinyi 浩然/haoran"),
		family: spellings("王/wang 李/li 张/zhang 刘/liu 陈/chen 杨/yang 黄/huang 赵/zhao 欧阳/ouyang 司马/sima"),
		city:   "上海市", ou: "Shanghai", familyFirst: true, country: "China", code: "CN", numeric: "156",
		streets: []string{"南京西路", "淮海中路", "世纪大道"}, phone: "+86 138 #### ####",
	},
	{
		given:  spellings("美咲/misaki 翔太/shota さくら/sakura 健一/kenichi ひなた/hinata アンナ/anna 大輔/daisuke 陽菜/hina 蓮/ren ケンジ/kenji"),
		family: spellings("佐藤/sato 鈴木/suzuki 高橋/takahashi 田中/tanaka 渡辺/watanabe 伊藤/ito 中村/nakamura 小林/kobayashi 斎藤/saito"),
		city:   "東京", ou: "Tokyo", familyFirst: true, state: "東京都", country: "Japan", code: "JP", numeric: "392",
		streets: []string{"丸の内", "六本木ヒルズ", "西新宿"}, phone: "+81 90 #### ####",
	},
	{
		given:  spellings("민준/minjun 서연/seoyeon 지훈/jihoon 수빈/subin 현우/hyunwoo 지은/jieun 예준/yejun 하은/haeun"),
		family: spellings("김/kim 이/lee 박/park 최/choi 정/jung 강/kang 조/cho 윤/yoon 남궁/namgung"),
		city:   "서울", ou: "Seoul", familyFirst: true, state: "서울특별시", country: "Korea, Republic of", code: "KR", numeric: "410",
		streets: []string{"세종대로", "테헤란로", "강남대로"}, phone: "+82 10 #### ####",
	},
	{
		given:  spellings("प्रिया/priya राहुल/rahul दीपक/deepak अनन्या/ananya संजय/sanjay कविता/kavita विक्रम/vikram स्नेहा/sneha अर्जुन/arjun मीरा/meera"),
		family: spellings("शर्मा/sharma पाटील/patil गुप्ता/gupta कुलकर्णी/kulkarni देशपांडे/deshpande जोशी/joshi सिंह/singh मेहता/mehta"),
		city:   "पुणे", ou: "Pune", state: "महाराष्ट्र", country: "India", code: "IN", numeric: "356",
		streets: []string{"सेनापती बापट रोड", "लक्ष्मी रोड", "Baner Road"}, phone: "+91 98### #####",
	},
	{
		given:  spellings("João/joao Inês/ines Tomás/tomas Conceição/conceicao Luís/luis Thaís/thais Antônio/antonio Márcia/marcia André/andre Lívia/livia"),
		family: spellings("da_Silva/dasilva Gonçalves/goncalves Araújo/araujo Magalhães/magalhaes Simões/simoes Corrêa/correa Pereira/pereira Leão/leao"),
		city:   "São Paulo", ou: "São Paulo", state: "SP", country: "Brazil", code: "BR", numeric: "076",
		streets: []string{"Avenida Paulista", "Rua Augusta", "Rua Oscar Freire"}, phone: "+55 11 9####-####",
	},
	{
		given:  spellings("Łukasz/lukasz Małgorzata/malgorzata Kateřina/katerina Ondřej/ondrej Agnieszka/agnieszka Grzegorz/grzegorz Božena/bozena Šimon/simon Jędrzej/jedrzej Věra/vera"),
		family: spellings("Kowalski/kowalski Wójcik/wojcik Dvořák/dvorak Źdźbło/zdzblo Zając/zajac Černý/cerny Błaszczyk/blaszczyk Růžička/ruzicka"),
		city:   "Kraków", ou: "Kraków", state: "Małopolskie", country: "Poland", code: "PL", numeric: "616",
		streets: []string{"ulica Pawia", "aleja Jana Pawła II", "Rynek Główny"}, phone: "+48 600 ### ###",
	},
	{
		given:  spellings("Søren/soren Åse/aase Þórunn/thorunn Håkan/hakan Mika/mika Øyvind/oyvind Linnéa/linnea Jón/jon Aino/aino Brynhildr/brynhildr"),
		family: spellings("Ødegård/odegard Þórsdóttir/thorsdottir Ångström/angstrom Hämäläinen/hamalainen Kjær/kjaer Sørensen/sorensen Lindqvist/lindqvist Bjørnson/bjornson"),
		city:   "Malmö", ou: "Malmö", state: "Skåne", country: "Sweden", code: "SE", numeric: "752",
		streets: []string{"Östra Förstadsgatan", "Södra Förstadsgatan", "Ångbåtsbron"}, phone: "+46 70 ### ## ##",
	},
	{
		given:  spellings("Nguyệt/nguyet Đức/duc İbrahim/ibrahim Şule/sule Thảo/thao Çağla/cagla Ümit/umit Quỳnh/quynh Işıl/isil Tuấn/tuan"),
		family: spellings("Nguyễn/nguyen Yılmaz/yilmaz Trần/tran Öztürk/ozturk Đặng/dang Şahin/sahin Phạm/pham Güneş/gunes"),
		city:   "İstanbul", ou: "Istanbul", country: "Türkiye", code: "TR", numeric: "792",
		streets: []string{"Büyükdere Caddesi", "Bağdat Caddesi", "İstiklâl Caddesi"}, phone: "+90 532 ### ## ##",
	},
}

var titles = []string{"Accountant", "Software Engineer", "Account Manager", "Head of Procurement", "Ingénieur d'études", "Sachbearbeiterin",
	"System Administrator", "Data Analyst", "Vice President, Sales & Marketing", "Warehouse Lead", "Legal Counsel", "HR Business Partner", "Praktikant", "主任"}

var departments = []string{"Finance", "Engineering", "Sales", "Procurement", "Legal", "Human Resources", "IT Operations", "Security", "Logistics", "Research & Development"}

// purposes name groups, with what the groups are said to be for.
var purposes = []struct{ name, description string }{
	{"VPN users", "May connect from outside"},
	{"Printers", "May use the printers of the office"},
	{"Build servers administrators", "Administer build servers, reviewed each quarter"},
	{"Mailing list", ""},
	{"ERP read", "Read access to ERP reports"},
	{"ERP write", "Posts to the ledger; approval by Finance needed"},
	{"Vertrieb", "Alle Kolleginnen und Kollegen im Vertrieb"},
	{"経理", "経理部の共有フォルダー"},
	{"Приёмная", "Доступ к календарю приёмной"},
	{"Wi-Fi guests", "Sponsors of guest access"},
	{"Badge access", "Doors that open for the members\r\nmanaged by facilities"},
	{"Source code", "Read access to all repositories"},
}
