#include "cli/held_out_texts.h"

namespace renga::cli {
namespace {

constexpr char kEnglish[] =
    R"(The bicycle had stood in the shed for six winters when Marta decided to ride it again.
The tyres were flat, the chain was brown with rust, and a spider had built its web between the spokes of
the front wheel. She carried the spider to the woodpile on a piece of cardboard and turned the bicycle
upside down on an old blanket. First she took off both wheels. The inner tubes were brittle and had to be
replaced, but the tyres themselves were still good. She cleaned the rims with a wet cloth and checked that
they ran straight by spinning them slowly past the tip of a screwdriver. One spoke was loose. A quarter of
a turn was enough to bring it back into line. The chain was beyond saving, so she measured it, bought a new
one in town, and fitted it the same evening. The brakes needed nothing more than a little oil and new rubber
blocks. When she pushed the bicycle out onto the road, the light in the sky was already fading, and the
first hundred metres felt as strange as walking on ice. By the bridge she had stopped thinking about her
balance. By the church she was singing.

Why do some materials bend while others break? The answer lies in how their atoms are arranged and in how
easily one layer of atoms can slide over another. In a soft metal such as copper, the atoms sit in a regular
lattice, and the bonds between them have no preferred direction. When you pull on a copper wire, small faults
in the lattice begin to move, a little like a wrinkle in a carpet that you push from one side of the room to
the other. The wire becomes longer and thinner, but it does not fall apart. In glass there is no such
lattice. The atoms are frozen in disorder, and the bonds between them are strong but stiff. A scratch on the
surface gathers the stress at its tip, and since nothing can slide to relieve it, the crack runs through the
whole pane in less than a thousandth of a second. Ceramics behave in much the same way. Engineers who need
a material that is both hard and tough therefore combine the two: hard grains that resist wear, held together
by a metal that can give way a little before it breaks.

Dear Mr Holloway, thank you for your letter of the third of May. I am sorry to hear that the desk arrived
with a damaged drawer. We have looked at the photographs you sent and agree that the wood must have split
before it left our workshop. A new drawer will be made this week and should reach you within ten working
days. You need not send the old one back. If you would rather have the whole desk replaced, please let us
know before Friday, so that we can arrange for the carrier to collect it. We have also noted that the invoice
charged you twice for delivery, and the difference has been returned to your account. Please accept our
apologies for the trouble. Yours sincerely, Anna Berg, customer service.

"Is anyone sitting here?" the old man asked. The girl shook her head and moved her bag. For a while they
looked out of the window together without speaking. Fields went by, then a canal with a single red boat, then
fields again. "You are going to the coast," he said at last. It was not a question. "How do you know?" "You
have a kite in that bag. Nobody takes a kite to the capital." She laughed. "It belonged to my brother. He
made it himself, but he never managed to get it off the ground. I think the tail is too short." The old man
put on his glasses and asked whether he might see it. He turned it over in his hands, pressed the crossing of
the two sticks with his thumb, and nodded slowly. "The tail is fine. The string is tied in the wrong place.
Move it up by the width of two fingers, and run into the wind, not away from it." At the next station he
took his hat, wished her good luck, and got off. She noticed only later that he had left his newspaper, and
that someone had drawn a kite in the margin of the front page, with a tail of exactly the right length.

To set up a new garden bed, choose a place that gets at least six hours of sun a day. Mark the edges with
string and remove the grass together with its roots. Loosen the soil to the depth of a spade, but do not turn
it over completely, because the life in the upper layer does not like to be buried. Spread a layer of compost
about as thick as your hand is wide, and rake it level. Water it well and wait for a week: the seeds of weeds
that have come to the surface will sprout, and you can pull them out before you plant anything. Beans and
peas can be sown directly. Tomatoes, peppers and aubergines should be raised indoors and planted out after
the last frost. Leave more room between the plants than seems necessary. In July it will be too little.

The committee met for two hours and reached three decisions. First, the library will open on Sundays from
October to March, for a trial period of one year. The cost, about forty thousand a year, is to be covered
by the reserve. Second, the contract for the repair of the town hall roof goes to the second lowest bidder,
since the lowest could not show that it had ever worked on a listed building. Third, the speed limit on
Mill Road will be lowered to thirty, as residents had asked in a petition with more than eight hundred
signatures. A motion to plant forty trees along the river was put off until the autumn, because nobody could
say who would water them in their first summer. The next meeting is on the twelfth of June at seven in the
evening. Guests are welcome and may speak for three minutes each.

Long before there were clocks in every house, people told the time by what they had to do. In the village
where my grandmother grew up, the day began when the baker lit his oven and ended when the last cow had been
milked. Noon was when the shadow of the church tower touched the well. On cloudy days noon was whenever the
teacher felt hungry. She used to say that nobody was ever late, because nobody could prove it. When the
railway came, a large clock was hung up at the station, and within a year everyone walked a little faster.
My grandmother was nine years old then. She remembered that her father bought a watch on the same day on
which he sold his horse, and that he looked at the watch far more often than he had ever looked at the horse.
)";

constexpr char kJapanese[] =
    R"(祖父の家には古い柱時計があった。毎朝六時になると、祖父は踏み台に上がって、小さな鍵で
ゆっくりとぜんまいを巻いた。その音で目を覚ますのが、夏休みの私の楽しみだった。時計は一日に二分ほど遅れたが、誰も
直そうとはしなかった。「二分くらい、待てばよい」と祖父は言って、湯気の立つ味噌汁をすすった。大人になって、駅の
階段を駆け上がるたびに、私はあの二分のことを思い出す。急いで手に入れた二分を、いったい何に使っているのだろうか。

金属が曲がるのに、ガラスが割れるのはなぜでしょうか。その違いは、原子の並び方と、力が加わったときに原子の層が互いに
すべることができるかどうかにあります。銅のような柔らかい金属では、原子が規則正しく並んでいて、結びつきに決まった
向きがありません。そのため、引っぱると少しずつ位置がずれて、細く長く伸びていきます。一方、ガラスの原子は不規則な
まま固まっていて、すべることができません。表面に小さな傷があると、そこに力が集まり、ひびが一瞬で全体に広がります。
硬さと粘り強さの両方が必要なときは、硬い粒を金属でつなぎ合わせた材料が使われます。

拝啓　五月三日付のお手紙をいただき、ありがとうございました。お届けした机の引き出しに傷があったとのこと、まことに申し訳
ございません。お送りいただいた写真を確認したところ、工房を出る前に木が割れていたものと思われます。今週中に新しい
引き出しを作り、十日以内にお手元に届くように手配いたします。古い引き出しを返送していただく必要はありません。机ごと
交換をご希望の場合は、金曜日までにご連絡ください。運送会社に引き取りを依頼いたします。また、送料が二重に請求されて
おりましたので、差額を口座にお返ししました。ご迷惑をおかけしましたことを、重ねておわび申し上げます。

「ここ、空いていますか」と老人がたずねた。少女はうなずいて、かばんを膝の上に移した。しばらくのあいだ、二人は黙って窓の
外を眺めていた。田んぼが過ぎ、赤い船の浮かぶ川が過ぎ、また田んぼが続いた。「海へ行くんだね」と老人が言った。「どうして
わかるんですか」「かばんから凧が見えている。都会へ凧を持っていく人はいないよ」少女は笑った。「兄が作った凧なんです。でも、
一度も上がったことがなくて。しっぽが短すぎるのかもしれません」老人は眼鏡をかけ、凧を手に取って裏返し、糸の結び目を
親指で押さえてみた。「しっぽはこれでいい。糸を結ぶ場所が低すぎるんだ。指二本分だけ上にして、風に向かって走ってごらん」
次の駅で、老人は帽子を手に取り、うまくいくといいね、と言って降りていった。

新しい花壇を作るには、一日に六時間以上日が当たる場所を選びます。まず紐で形を決め、草を根ごと取り除きます。土は鍬の深さ
まで柔らかくしますが、上下を完全に入れ替えてはいけません。表面に近い土にいる小さな生き物は、深く埋められるのを嫌うから
です。その上に手のひらの幅ほどの厚さに堆肥を広げ、平らにならします。たっぷり水をやって一週間待つと、雑草の芽が出て
くるので、何かを植える前に抜いてしまいましょう。豆は直接まくことができます。トマトやなすは室内で苗を育て、霜の心配が
なくなってから外に植えます。株と株のあいだは、必要だと思うよりも広くあけてください。七月には、それでも狭く感じるはずです。

委員会は二時間の話し合いの末、三つのことを決めた。第一に、図書館は十月から三月まで、日曜日にも開館する。期間は一年で、
費用は積立金から出す。第二に、役場の屋根の修理は、二番目に安い見積もりを出した会社に頼む。最も安い会社には、古い建物を
扱った経験がなかったからである。第三に、水車通りの制限速度を三十キロに下げる。住民からは八百人を超える署名が集まって
いた。川沿いに四十本の木を植えるという提案は、最初の夏に誰が水をやるのかが決まらず、秋まで持ち越しとなった。
)";

}  // namespace

std::vector<NamedText> HeldOutTexts() {
  return {{.name = "english", .text = kEnglish}, {.name = "japanese", .text = kJapanese}};
}

}  // namespace renga::cli
