"""Hypernyms of everyday nouns: data for `agreement`.

A line is `hypernym: members`, separated by commas; `a = b = c` are synonyms. A member may itself be a hypernym, and may
belong to several; there are no cycles. An ambiguous word is a hypernym of both meanings: a "bike" is a bicycle or a
motorcycle. Compounds that are not a kind of their last word are listed among the things at the end: a gravy boat is not
a boat. The table covers the categories of COCO, Objects365, LVIS and Visual Genome and words used for them in captions.
No conclusion is drawn from words that are not listed.
"""

from __future__ import annotations

HYPERNYMS = """
person = human = human being = individual = someone = somebody = pedestrian = people = passerby: man, woman, boy, girl,
 child, baby, adult, teenager, youth, player, skier, snowboarder, skateboarder = skater, surfer, swimmer, cyclist =
 bicyclist, motorcyclist, biker, rider, driver, passenger, runner = jogger, batter = hitter, catcher, pitcher, umpire =
 referee, fielder, goalie, athlete, spectator, crowd, audience, couple, group, family, team, worker, chef = cook,
 waiter, waitress, policeman = police officer = officer = cop, soldier, fireman = firefighter, doctor, nurse, student,
 teacher, businessman, tourist, customer, shopper, guest, friend, bride, groom, farmer, fisherman, sailor, vendor,
 cowboy, musician, guitarist, drummer, singer, performer, dancer, actor, model, photographer, bystander, onlooker,
 hiker, walker, instructor, coach, parent, he, she, him, her, clown, king, queen, santa, monk, priest, baseball player,
 tennis player, soccer player, football player, basketball player, body, figure
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
 butterfly, jellyfish, mouse animal, rat, squirrel, fox, wolf, kangaroo, koala = koala bear, panda, rhinoceros = rhino,
 hippopotamus = hippo, leopard, cheetah, insect, bee, spider, snake, lizard, frog, alligator, crocodile, buffalo, bison,
 mammal, reptile, pet
dog = puppy = pup = doggy = hound = canine: poodle, labrador, retriever, golden retriever, terrier, bulldog, beagle,
 pug, chihuahua, husky, dachshund, corgi, collie, shepherd, german shepherd, dalmatian, spaniel, mutt, schnauzer,
 rottweiler
cat = kitten = kitty = feline: tabby, siamese, calico
horse = equine: pony, foal, stallion, mare, colt
cow = cattle: bull, calf, ox, steer, heifer, bovine
sheep: lamb, ram, ewe
bear: polar bear, grizzly bear, brown bear, black bear, panda, koala, cub
monkey: ape, chimpanzee, gorilla, baboon
deer: moose, elk, reindeer
bird: wild bird, chicken, hen, rooster, turkey, chick
wild bird: duck, goose, swan, pigeon, dove, parrot, penguin, seagull = gull, eagle, owl, sparrow, crow, raven, flamingo,
 peacock, ostrich, pelican, heron, hawk, robin, parakeet, hummingbird, stork, crane bird, cockatoo, woodpecker, finch,
 vulture, falcon, magpie, egret, puffin, waterfowl, mallard
vehicle: car, truck, bus, van, bike, train, tricycle, scooter, ambulance, fire truck, rickshaw, carriage, trolley, boat,
 airplane, helicopter, tractor, trailer, tank, machinery vehicle, camper, rv, golf cart, wagon
bike: bicycle, motorcycle
car = automobile = auto: suv, sedan, sports car, taxi = cab = taxicab, convertible, hatchback, minivan, jeep, station
 wagon, limousine = limo, police car, police cruiser, race car, coupe, formula 1
suv: jeep
van: minivan, camper van
truck = lorry: pickup truck = pickup, fire truck = fire engine = firetruck, dump truck, semi, tow truck, heavy truck,
 trailer truck, garbage truck, delivery truck, food truck, tractor trailer
bus: school bus, double decker, coach bus, double decker bus, minibus, shuttle
motorcycle = motorbike = motor bike = moped = motor cycle: dirt bike, harley, chopper
bicycle = cycle = push bike: mountain bike, tandem
tricycle = trike
train: locomotive, engine, tram = streetcar, subway, train car, railcar, steam engine, metro, freight train, passenger
 train
airplane = plane = aeroplane = aircraft = airliner = jet: biplane, jetliner, fighter jet, seaplane, glider, propeller
 plane
boat: ship, sailboat = sail boat, canoe, kayak, yacht, ferry, rowboat, speedboat, raft, gondola, dinghy, motorboat,
 tugboat, vessel, barge, fishing boat, cruise ship
ship: cruise ship, vessel
machinery vehicle: excavator, bulldozer, tractor, forklift, digger, backhoe, crane
signal: traffic light
light: lamp, traffic light, street light
traffic light = stoplight = traffic signal = stop light = signal light = street signal
fire hydrant = hydrant = fireplug
sign = signboard: stop sign, traffic sign = road sign = street sign, speed limit sign, crosswalk sign, billboard
street light = streetlight = street lamp = lamppost = lamp post = light pole
parking meter = meter
furniture: chair, couch, table, bed, cabinet, bench, stool, nightstand, bookcase, ottoman
bench: pew, park bench
chair = seat: armchair = arm chair, rocking chair, recliner, wheelchair, highchair = high chair, lounge chair, office
 chair, beach chair, folding chair, lawn chair, deck chair, lounger, throne
stool: bar stool = barstool, footstool, ottoman
couch = sofa = settee = loveseat: sectional, futon
bed: crib, bunk bed, bunk, cot, hammock
table: dining table = dinning table = dinner table = dining room table, coffee table, side table = end table,
 nightstand, desk, picnic table, kitchen table, pool table
dining table: kitchen table, picnic table
nightstand = night stand = bedside table
cabinet = cupboard = armoire = wardrobe = closet: dresser, chest of drawers, locker, hutch, sideboard
shelf = bookshelf = bookcase = shelving = rack
potted plant = houseplant = house plant = pot plant
plant: flower, tree, bush = shrub, fern, cactus, succulent, palm, ivy, grass, vine, potted plant
flower = blossom = bloom: rose, tulip, daisy, sunflower, lily, orchid, carnation, bouquet, petal
screen = display: tv, monitor
tv = television = tv monitor = television set = tv set = flat screen = flatscreen
monitor = computer monitor = computer screen
computer: laptop, desktop = pc = desktop computer, tablet, computer box
laptop = laptop computer = notebook computer = macbook
computer box = computer tower = computer case = cpu
mouse = computer mouse = wireless mouse
remote = remote control = controller = game controller = wii remote = wiimote: wii controller, clicker
keyboard = computer keyboard = key board
cell phone = cellphone = mobile phone = mobile = smartphone = smart phone = iphone
phone = telephone = landline: cell phone
microwave = microwave oven
stove = range = cooker: gas stove, induction cooker = induction stove, stove top = stovetop = cooktop
sink = washbasin = wash basin = washbowl
refrigerator = fridge = freezer: minifridge
washing machine = washer: dryer, drying machine
book = textbook: novel, notebook, paperback, magazine, album, cookbook, bible
clock = timepiece: alarm clock, clock face, wall clock
watch = wristwatch
vase: urn, flower vase
scissors = shears = scissor
toy: teddy bear = teddy = stuffed bear = stuffed animal = stuffed toy = plush = plushie = plush toy, doll, lego, action
 figure, rubber duck, toy car, toy train, stuffed dog, stuffed rabbit, stuffed bunny
rabbit = bunny = hare
hair drier = hair dryer = hairdryer = blow dryer = blowdryer
toothbrush = tooth brush
toilet = commode = toilet bowl: toilet seat
bottle: wine bottle, beer bottle, water bottle
glass = drinking glass: wine glass = wineglass, goblet, tumbler, champagne glass
wine glass: goblet, champagne glass, champagne flute, stemware
cup = mug = coffee cup = coffee mug: teacup = tea cup, paper cup
drink = beverage: coffee, tea, beer, wine, juice, soda, cocktail, smoothie
dish: bowl, plate
bowl: soup bowl, salad bowl
plate: saucer, platter
knife: butter knife
spoon: ladle, teaspoon
silverware = cutlery: fork, knife, spoon
utensil: silverware, spatula, tongs, chopstick
food: fruit, vegetable, meat, bread, cake, pizza, sandwich, hot dog, donut, rice, pasta, meal, dessert, snack, cheese,
 egg
fruit: apple, banana, orange, lemon, pear, peach, strawberry, cherry, grape, mango, pineapple, watermelon, kiwi = kiwi
 fruit = kiwifruit, plum, avocado, coconut, papaya, pomegranate, grapefruit, durian, melon, berry, lime, tangerine,
 blueberry, raspberry
orange: tangerine, mandarin, clementine
vegetable = veggie: green vegetable, broccoli, carrot, tomato, lettuce, cabbage, onion, potato, cucumber, pepper,
 garlic, corn, pumpkin, eggplant, mushroom, asparagus, bean, green bean, pea, spinach, celery, radish, okra, zucchini,
 squash
pepper: bell pepper
sandwich: hamburger = burger = cheeseburger, sub, panini, grilled cheese
hot dog = hotdog
sausage: frankfurter, wiener, bratwurst
pizza: pizza slice, pepperoni pizza, cheese pizza
donut = doughnut
cake = cupcake: birthday cake, wedding cake, cheesecake
dessert: cake, pie, ice cream, cookie, donut, pudding, pastry
fry = french fry
chips = crisps
meat: steak, chicken meat, beef, pork, ham, sausage, bacon
ball: sports ball, beach ball
sports ball: baseball, basketball, football, tennis ball, volleyball, golf ball, bowling ball, rugby ball
tennis ball = tennis
football: soccer ball = soccer, american football
baseball bat = bat
baseball glove = baseball mitt = catcher mitt
glove: baseball glove, boxing glove
mitt: baseball glove, mitten
tennis racket = tennis racquet = racket = racquet
skateboard = skate board = longboard
board: surfboard, snowboard, skateboard, cutting board, blackboard, whiteboard
surfboard = surf board = boogie board = bodyboard: paddleboard
snowboard = snow board
ski = skis = skiboard
frisbee = disc = disk
kite: box kite
umbrella = parasol: beach umbrella
bag: handbag = purse = pocketbook = hand bag = tote = tote bag = satchel = shoulder bag = clutch, backpack = back pack =
 rucksack = knapsack = bookbag = book bag, suitcase = luggage = baggage, duffel bag, briefcase, messenger bag, shopping
 bag, grocery bag, plastic bag, trash bag, sack, pouch
suitcase: carry on, travel bag
tie = necktie: bow tie = bowtie
clothing = clothes = outfit: shirt, pants = trousers = jeans, jacket, coat, dress, skirt, shorts = short pants, sweater,
 hat, sock, suit, uniform, vest, hoodie, t shirt = tee shirt = tshirt, scarf, glove, blouse
hat = cap: baseball cap, beanie, cowboy hat, sun hat, visor, beret, hood
helmet: hard hat, bike helmet, batting helmet
glasses = eyeglasses = spectacles = eyewear: sunglasses = shades, goggles
shoe = footwear: sneaker = tennis shoe = running shoe = trainer, leather shoe, boot, sandal = flip flop, slipper, high
 heel = heel, loafer, cleat, skate, roller skate, ski boot
jewelry: necklace, bracelet, ring, earring, watch
lamp: chandelier, lantern, table lamp, floor lamp, light fixture, desk lamp, ceiling light
picture = frame = picture frame = painting = photo = photograph = poster = portrait = artwork = print: drawing
curtain = drape = drapery: shower curtain, window blind
blanket = quilt = comforter = bedspread: throw, duvet, afghan
pillow = cushion: throw pillow
carpet = rug = mat: floor mat, bath mat, doormat
trash can = trash bin = trash bin can = garbage can = trashcan = dustbin = garbage bin = waste basket = wastebasket =
 trash
bin: trash can
can: canned = tin can = soda can = beer can, trash can, watering can, spray can
container: box, basket, bottle, jar, bin, can, bucket, barrel, tub, canister, carton, crate
storage box = box = carton = crate: package, cardboard box
bucket = pail
barrel = keg
power outlet = outlet = socket = electrical outlet = wall socket
faucet = tap = spigot
blackboard = chalkboard
stroller = baby carriage = pram = buggy
balloon: hot air balloon = hotair balloon
headphone = headset = earphone = head phone = earbud
musical instrument = instrument: guitar, piano, violin, cello, drum, trumpet, trombone, saxophone, flute, tuba, cymbal
guitar: electric guitar, acoustic guitar, bass
gun: rifle, pistol, handgun, firearm
paddle: oar
meat ball = meatball
fish: goldfish, shark, salmon, tuna
building = structure: house, church, tower, skyscraper, barn, hotel, store, cathedral, castle, home, shed, garage
house: cottage, cabin, hut
tree: palm tree, pine tree, palm, christmas tree, evergreen
window: windowpane, windshield, pane
door: doorway, gate, garage door
fence: railing, gate, barrier, chain link fence
pole: post, telephone pole, utility pole, street light
road = street: highway, pavement, path, lane, asphalt
sidewalk = pavement = side walk: walkway, path
wall: brick wall, stone wall
water: ocean, sea, lake, river, pond, wave, pool
sea = ocean
grass = lawn = turf
field: pasture, meadow, grassland
mountain: hill, peak, mountainside
floor: tile, hardwood floor
hair: ponytail, beard, mustache = moustache
hand: fist
towel: washcloth, paper towel, bath towel, hand towel
thing: flag, belt, speaker, pen, pencil, crayon, marker, eraser, camera, traffic cone, microphone, lifesaver = life buoy
 = lifebuoy, awning, tent, air conditioner = ac, hockey stick, tripod, hanger, napkin = serviette, tea pot = teapot,
 shovel = spade, toilet paper = toilet roll, chopstick, cutting board = chopping board, ladder, radiator = heater, fire
 extinguisher, candy, bathtub = bath tub = tub, golf club, cigar = cigarette, paint brush = paintbrush, brush, extension
 cord = cord = cable, folder, mask, kettle, coffee machine = coffee maker, slide, projector, printer, tissue, scale,
 trophy, blender, tape, key, hurdle, fishing rod = fishing pole, medal, megaphone, broom, router = modem, card = playing
 card, toaster, shrimp = prawn, sushi, pliers, cd = dvd, hammer, cue = pool cue, screwdriver, soap, recorder, globe,
 stapler, dishwasher, hoverboard, rice cooker, calculator, dumbbell, drill, treadmill, lighter, mop, binoculars,
 barbell, scallop, noodle, comb, dumpling, oyster, chainsaw, lipstick, egg, bread, cheese, ice cream, snack, sauce,
 soup, salad, mirror, shadow, arm, eye, ear, nose, mouth, tail, wing, wheel = tire = tyre, handle, button, ceiling,
 roof, stair = step, bridge, rock = stone, leaf, branch, snow, cloud, sun, sign post, paper, tray, basket, jar, pot,
 pan, lid, straw, chain, rope, net, tile, brick, counter, railing, platform, track, station, fan, candle, mattress,
 muffin, bagel, toast, urinal, drawer, basin, finger, face, beach, parasail = wind sail, canopy, clock tower, oven,
 flask, jug, briefcase, table tennis = ping pong, game board = board game, eyeliner = eyeliner pencil, cosmetic, license
 plate = number plate, home plate, steering wheel, tank top, bottle cap, bottle opener, can opener, gravy boat, elevator
 car, space shuttle, water tower, water scooter = jet ski, hand glass, trophy cup, army tank, eye mask, tea bag, life
 jacket = life vest, crane bird, ski pole, sky, sand, head
"""
