"""Which everyday noun is a kind of which: data, for `agreement`.

A line is `kind: members`, separated by commas; `a = b = c` are words for the same. A member may be a kind itself, and a
member of several. Written for the categories of COCO, Objects365, LVIS and Visual Genome and the words that people use
for them in captions; what is not here is not known, and nothing is concluded from it.
"""

from __future__ import annotations

KINDS = """
person = human = human being = individual = someone = somebody = pedestrian = people = passerby: man, woman, boy, girl,
 child, baby, adult, teenager, youth, player, skier, snowboarder, skateboarder = skater, surfer, swimmer, cyclist =
 biker = bicyclist, motorcyclist, rider, driver, passenger, runner = jogger, batter = hitter, catcher, pitcher, umpire
 = referee, fielder, goalie, athlete, spectator, fan, crowd, audience, couple, group, family, team, worker, chef =
 cook, waiter, waitress, policeman = police officer = officer = cop, soldier, fireman = firefighter, doctor, nurse,
 student, teacher, businessman, tourist, customer, shopper, guest, friend, bride, groom, farmer, fisherman, sailor,
 vendor, cowboy, musician, guitarist, drummer, singer, performer, dancer, actor, model, photographer, bystander,
 onlooker, hiker, walker, instructor, coach, parent, he, she, him, her, clown, king, queen, santa, monk, priest,
 baseball player, tennis player, soccer player, football player, basketball player, body, figure
adult: man, woman
man = guy = dude = gentleman = male = fellow = chap = sir: groom, father = dad, grandfather, husband, businessman,
 policeman, fireman, fisherman, cowboy, he, him, waiter
woman = lady = female = gal: bride, mother = mom = mum, grandmother, wife, she, her, waitress, queen
boy: son, brother
girl: daughter, sister
child = kid: boy, girl, baby, toddler, son, daughter
baby = infant: toddler
animal = creature = beast: dog, cat, horse, cow, sheep, elephant, bear, zebra, giraffe, bird, pig, goat, deer, rabbit,
 monkey, lion, tiger, fish, penguin, camel, donkey, antelope, yak, seal, dolphin, whale, turtle, crab, lobster,
 butterfly, jellyfish, mouse animal, rat, squirrel, fox, wolf, kangaroo, koala, panda, rhinoceros = rhino, hippopotamus
 = hippo, leopard, cheetah, insect, bee, spider, snake, lizard, frog, alligator, crocodile, buffalo, bison, mammal,
 reptile, pet
dog = puppy = pup = doggy = hound = canine: poodle, labrador, retriever, golden retriever, terrier, bulldog, beagle,
 pug, chihuahua, husky, dachshund, corgi, collie, shepherd, german shepherd, dalmatian, spaniel, mutt, schnauzer,
 rottweiler
cat = kitten = kitty = feline: tabby, siamese, calico
horse = equine: pony, foal, stallion, mare, colt
cow = cattle: bull, calf, ox, steer, heifer, bovine
sheep: lamb, ram, ewe
bear: polar bear, grizzly bear, brown bear, black bear, panda, cub
monkey: ape, chimpanzee, gorilla, baboon
deer: moose, elk, reindeer, antelope
bird = wild bird: duck, goose, swan, pigeon, dove, parrot, penguin, seagull = gull, eagle, owl, chicken, hen, rooster,
 turkey, sparrow, crow, raven, flamingo, peacock, ostrich, pelican, heron, hawk, robin, parakeet, hummingbird, stork,
 crane bird, cockatoo, woodpecker, finch, vulture, falcon, magpie, egret, puffin, chick, waterfowl, mallard
vehicle: car, truck, bus, van, motorcycle, bicycle, train, tricycle, scooter, ambulance, fire truck, rickshaw,
 carriage, trolley, boat, airplane, helicopter, tractor, trailer, tank, machinery vehicle, camper, rv, golf cart, wagon
car = automobile = auto: suv, sedan, sports car, taxi = cab = taxicab, convertible, hatchback, minivan, jeep, station
 wagon, limousine = limo, police car, police cruiser, race car, coupe, formula 1
suv: jeep
van: minivan, camper van
truck = lorry: pickup truck = pickup, fire truck = fire engine = firetruck, dump truck, semi, tow truck, heavy truck,
 trailer truck, garbage truck, delivery truck, food truck, tractor trailer
bus: school bus, double decker, coach bus, double decker bus, minibus, shuttle
motorcycle = motorbike = motor bike = moped = motor cycle: scooter, dirt bike, harley, bike, chopper
bicycle = bike = cycle: tricycle, mountain bike, tandem
train: locomotive, engine, tram = streetcar, subway, train car, railcar, steam engine, metro, freight train, passenger
 train
airplane = plane = aeroplane = aircraft = airliner = jet: biplane, jetliner, fighter jet, seaplane, glider, propeller
 plane
boat: ship, sailboat = sail boat, canoe, kayak, yacht, ferry, rowboat, speedboat, raft, gondola, dinghy, motorboat,
 tugboat, vessel, barge, fishing boat, cruise ship
ship: cruise ship, vessel
machinery vehicle: excavator, bulldozer, tractor, forklift, digger, backhoe, crane
traffic light = stoplight = traffic signal = stop light = signal light = street signal: signal, light
fire hydrant = hydrant = fireplug
sign = signboard: stop sign, traffic sign = road sign = street sign, speed limit sign, crosswalk sign, billboard
street light = streetlight = street lamp = lamppost = lamp post = light pole: light, lamp
parking meter = meter
furniture: chair, couch, table, bed, cabinet, bench, stool, nightstand, bookcase, ottoman
bench: pew, park bench
chair = seat: armchair = arm chair, rocking chair, recliner, wheelchair, highchair = high chair, stool, lounge chair,
 office chair, beach chair, folding chair, lawn chair, deck chair, lounger, throne
stool: bar stool = barstool, footstool, ottoman
couch = sofa = settee = loveseat: sectional, futon
bed: mattress, crib, bunk bed, bunk, cot, hammock
table: dining table = dinning table = dinner table = dining room table, coffee table, side table = end table,
 nightstand, desk, picnic table, kitchen table, buffet, counter, tabletop
dining table: kitchen table, picnic table, tabletop, counter
nightstand = night stand = bedside table
cabinet = cupboard = armoire = wardrobe = closet: drawer, dresser, chest of drawers, locker, hutch, sideboard
shelf = bookshelf = bookcase = shelving = rack
potted plant = houseplant = house plant = pot plant: plant, flower, tree, bush, fern, cactus, succulent
plant: flower, tree, bush = shrub, fern, cactus, palm, ivy, grass, vine, potted plant
flower = blossom = bloom: rose, tulip, daisy, sunflower, lily, orchid, carnation, bouquet, petal
tv = television = tv monitor = television set = tv set = flat screen = flatscreen: monitor = computer monitor, screen,
 display
monitor: screen, computer screen, display, computer
laptop = laptop computer = notebook computer = macbook: computer, notebook
computer: laptop, desktop, pc, tablet, desktop computer, monitor, computer tower, tower
computer box = computer tower = computer case: tower, cpu, computer
mouse = computer mouse = wireless mouse
remote = remote control = controller = game controller = wii remote = wiimote: wii controller, clicker
keyboard = computer keyboard = key board
cell phone = cellphone = mobile phone = mobile = smartphone = smart phone = iphone: phone
phone = telephone = landline: cell phone
microwave = microwave oven
oven = stove = range = cooker: stove top, stovetop, gas stove, burner
gas stove: stove, stovetop, burner, cooktop
sink = basin = washbasin: wash basin, washbowl
refrigerator = fridge = freezer: minifridge
washing machine = washer: dryer, drying machine
book = textbook: novel, notebook, paperback, magazine, album, cookbook, bible
clock: alarm clock, clock face, wall clock, clock tower, timepiece
watch = wristwatch
vase: urn, flower vase, jar, pot, pitcher
scissors = shears = scissor
toy: teddy bear = teddy = stuffed bear = stuffed animal = stuffed toy = plush = plushie = plush toy, doll, lego, action
 figure, rubber duck, toy car, toy train, stuffed dog, stuffed rabbit, stuffed bunny
rabbit = bunny = hare
hair drier = hair dryer = hairdryer = blow dryer = blowdryer
toothbrush = tooth brush
toilet = commode = toilet bowl: toilet seat, urinal
bottle: wine bottle, beer bottle, water bottle, flask, jug, beer
glass = drinking glass: wine glass = wineglass, goblet, tumbler, champagne glass, cup
wine glass: goblet, champagne glass, champagne flute, stemware
cup = mug = coffee cup = coffee mug: teacup = tea cup, paper cup, coffee, glass, tumbler, beverage, drink
bowl: dish, soup bowl, salad bowl
plate: dish, saucer, platter
fork: utensil, silverware
knife: utensil, silverware, blade, butter knife
spoon: ladle, utensil, silverware, teaspoon
utensil: fork, knife, spoon, spatula, tongs, chopstick
food: fruit, vegetable, meat, bread, cake, pizza, sandwich, hot dog, donut, rice, pasta, meal, dessert, snack, cheese,
 egg
fruit: apple, banana, orange, lemon, pear, peach, strawberry, cherry, grape, mango, pineapple, watermelon, kiwi, plum,
 avocado, coconut, papaya, pomegranate, grapefruit, durian, melon, berry, lime, tangerine, blueberry, raspberry
orange: tangerine, mandarin, clementine
vegetable = veggie = green vegetable: broccoli, carrot, tomato, lettuce, cabbage, onion, potato, cucumber, pepper,
 garlic, corn, pumpkin, eggplant, mushroom, asparagus, bean, green bean, pea, spinach, celery, radish, okra, zucchini,
 squash
pepper: bell pepper
sandwich: hamburger = burger = cheeseburger, sub, panini, toast, wrap, bagel, grilled cheese
hot dog = hotdog: sausage, frankfurter, wiener, bratwurst
pizza: pizza slice, pepperoni pizza, cheese pizza
donut = doughnut
cake = cupcake: birthday cake, wedding cake, pastry, dessert, cheesecake, muffin
dessert: cake, pie, ice cream, cookie, donut, pudding, pastry
chips = fry = french fry
meat: steak, chicken meat, beef, pork, ham, sausage, bacon
ball: baseball, basketball, soccer ball = soccer = football, tennis ball, volleyball, golf ball, american football,
 beach ball, bowling ball, sports ball, rugby ball
sports ball: ball, baseball, basketball, soccer ball, tennis ball, volleyball, golf ball, football, frisbee disc
baseball bat = bat
baseball glove = baseball mitt = catcher mitt: glove, mitt
glove = mitten = mitt
tennis racket = tennis racquet = racket = racquet
skateboard = skate board = longboard
surfboard = surf board = boogie board = bodyboard: board, paddleboard
snowboard = snow board: board
ski = skis = skiboard: ski pole
frisbee = disc = disk
kite: parasail, wind sail, box kite
umbrella = parasol: beach umbrella, canopy
bag: handbag = purse = pocketbook = hand bag = tote = tote bag = satchel = shoulder bag = clutch, backpack = back pack
 = rucksack = knapsack = bookbag = book bag, suitcase = luggage = baggage, duffel bag, briefcase, messenger bag,
 shopping bag, grocery bag, plastic bag, trash bag, sack, pouch
suitcase: trunk, carry on, briefcase, travel bag
tie = necktie: bow tie = bowtie
clothing = clothes = outfit: shirt, pants = trousers = jeans, jacket, coat, dress, skirt, shorts = short pants, sweater,
 hat, sock, suit, uniform, vest, hoodie, t shirt = tee shirt = tshirt, scarf, glove, blouse
hat = cap: helmet, baseball cap, beanie, cowboy hat, sun hat, visor, beret, hood
helmet: hard hat, bike helmet, batting helmet
glasses = eyeglasses = spectacles = eyewear: sunglasses = shades, goggles
shoe = footwear: sneaker = tennis shoe = running shoe = trainer, leather shoe, boot, sandal = flip flop, slipper, high
 heel = heel, loafer, cleat, skate, roller skate, ski boot
jewelry: necklace, bracelet, ring, earring, watch
lamp = light: chandelier, lantern, table lamp, floor lamp, light fixture, lampshade, desk lamp, ceiling light, candle
picture = frame = picture frame = painting = photo = photograph = poster = portrait = artwork = print: drawing
curtain = drape = drapery: shower curtain, window blind
blanket = quilt = comforter = bedspread: throw, duvet, afghan
pillow = cushion: throw pillow
carpet = rug = mat: floor mat, bath mat, doormat
trash can = trash bin = trash bin can = garbage can = trashcan = dustbin = garbage bin = waste basket = wastebasket:
 bin, can, trash
container: box, basket, bottle, jar, bin, can, bucket, barrel, tub, canister, carton, crate
storage box = box = carton = crate: package, cardboard box, chest
bucket = pail
barrel = keg
power outlet = outlet = socket = electrical outlet = wall socket
faucet = tap = spigot
blackboard = chalkboard
stroller = baby carriage = pram = buggy
luggage: suitcase, bag, duffel bag
candle: candlestick
balloon: hot air balloon = hotair balloon
headphone = headset = earphone = head phone = earbud
musical instrument = instrument: guitar, piano, violin, cello, drum, trumpet, trombone, saxophone, flute, tuba, cymbal
guitar: electric guitar, acoustic guitar, bass
gun: rifle, pistol, handgun, firearm
paddle: oar
meat ball = meatball
goldfish: fish
fish: goldfish, shark, salmon, tuna
building = structure: house, church, tower, skyscraper, barn, hotel, store, cathedral, castle, home, shed, garage
house: cottage, cabin, hut
tree: palm tree, pine tree, palm, christmas tree, evergreen
window: windowpane, windshield, pane
door: doorway, gate, garage door
fence: railing, gate, barrier, chain link fence
pole: post, telephone pole, utility pole, lamp post
road = street: highway, pavement, path, lane, asphalt
sidewalk = pavement = side walk: walkway, path
wall: brick wall, stone wall
water: ocean, sea, lake, river, pond, wave, pool
sea = ocean
grass = lawn = turf: field
field: pasture, meadow, grassland
sand: beach
mountain: hill, peak, mountainside
sky: cloud
floor: tile, hardwood floor
hair: ponytail, beard, mustache = moustache
hand: fist, finger, thumb
leg: thigh, knee, calf leg
head: face
towel: washcloth, paper towel, bath towel, hand towel
thing: flag, microphone, belt, speaker, pen, pencil, crayon, marker, eraser, camera, canned = can, traffic cone = cone,
 lifesaver = life buoy = lifebuoy, awning, tent, air conditioner = ac, hockey stick, tripod, hanger, napkin =
 serviette, tea pot = teapot, shovel = spade, toilet paper = toilet roll, chopstick, cutting board = chopping board,
 ladder, radiator = heater, fire extinguisher, candy, bathtub = bath tub = tub, golf club, cigar = cigarette, paint
 brush = paintbrush, brush, extension cord = cord = cable, folder, mask, kettle, coffee machine = coffee maker, slide,
 projector, printer, tissue, scale, trophy, blender, tape, key, hurdle, fishing rod = fishing pole, medal, megaphone,
 broom, router = modem, card = playing card, toaster, shrimp = prawn, sushi, pliers, cd = dvd, hammer, cue = pool cue,
 screwdriver, soap, recorder, globe, stapler, dishwasher, hoverboard, rice cooker, calculator, dumbbell, drill,
 treadmill, lighter, mop, binoculars, barbell, scallop, noodle, comb, dumpling, oyster, chainsaw, lipstick, egg, bread,
 cheese, ice cream, snack, sauce, soup, salad, mirror, shadow, arm, eye, ear, nose, mouth, tail, wing, wheel = tire =
 tyre, handle, button, ceiling, roof, stair = step, bridge, rock = stone, leaf, branch, snow, cloud, sun, sign post,
 paper, tray, basket, jar, pot, pan, lid, straw, chain, rope, net, tile, brick, counter, railing, platform, track,
 station
"""

#: The two sexes of people: a word of the one and a word of the other do not agree.
OPPOSITES = (
    frozenset("man boy guy son brother father husband he him king groom".split()),
    frozenset("woman girl lady daughter sister mother wife she her queen bride".split()),
)

#: What people call by each other's names: nothing is concluded where one is said for another. So it is with people.
OVERLAPS = (
    frozenset("cup bowl vase pot jar pitcher jug glass urn plate container".split()),
    frozenset("car truck van suv trailer".split()),
    frozenset(["monitor", "tv", "computer", "laptop", "screen", "display"]),
    frozenset("desk table counter dresser nightstand cabinet shelf furniture".split()),
    frozenset(["jacket", "coat", "shirt", "sweater", "hoodie", "vest", "t shirt", "blouse", "suit", "uniform"]),
    frozenset(["pole", "post", "street light", "lamp", "traffic light"]),
    frozenset(["toy", "doll", "teddy bear", "action figure"]),
    frozenset("carpet floor tile rug".split()),
    frozenset(["sign", "picture", "billboard"]),
    frozenset("couch chair bench stool bed ottoman".split()),
    frozenset("bag suitcase luggage backpack handbag".split()),
    frozenset("blanket pillow towel carpet curtain".split()),
    frozenset("road street sidewalk path".split()),
    frozenset("grass field plant tree bush flower".split()),
    frozenset("oven microwave toaster".split()),
    frozenset("surfboard snowboard skateboard ski".split()),
)

#: Names as data sets misspell them.
SPELLING = {
    "moniter": "monitor",
    "bakset": "basket",
    "ballon": "balloon",
    "dinning": "dining",
    "campel": "camel",
    "buttefly": "butterfly",
    "mushroon": "mushroom",
    "noddles": "noodles",
    "teniis": "tennis",
    "extention": "extension",
    "measur": "measure",
    "hamimelon": "hami melon",
    "billards": "billiards",
    "hotair": "hot air",
    "skiboard": "ski",
    "unbrella": "umbrella",
    "cloths": "clothes",
}
